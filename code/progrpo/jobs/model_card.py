"""The README.md beside trained weights, in the form of the Hugging Face hub's model cards."""

from progrpo.config import Model, Run
from progrpo.devices import DTYPES

CARD = """---
base_model: {base}
library_name: diffusers
pipeline_tag: text-to-image
tags: [{tags}]
---

# {method} on {base}

Trained by reinforcement learning on a reward, with the reproduction of Pro-GRPO (arXiv 2512.15347).

| setting | value |
|---|---|
| reward | {reward} |
| iterations | {iterations}, of {prompts} prompts |
| group | {group} |
| sampling in training | {steps} steps, guidance {guidance:g} |
| seed | {seed} |

## Use

```python
{use}
```

## Limits

The model was made to score high on the reward above. What that reward does not see may have become worse: variety, text, faces, or
agreement with the prompt. The licence and the limits of the base model hold. `provenance.json` has the hashes of the settings, of the
code, and of every file here.
"""
# With a dtype, because parts of a base model may be stored in another precision, and would not fit together as they are stored.
ADAPTER = """import torch
from diffusers import DiffusionPipeline

pipeline = DiffusionPipeline.from_pretrained({base!r}, dtype={dtype})
pipeline.load_lora_weights("this folder")"""
WHOLE = """import torch
from diffusers import DiffusionPipeline, {kind}

{name} = {kind}.from_pretrained("this folder", subfolder={name!r}, dtype={dtype})
pipeline = DiffusionPipeline.from_pretrained({base!r}, {name}={name}, dtype={dtype})"""


def group_text(run: Run) -> str:
    """A group in words: `48, pruned to 24 after step 5 and 12 after step 7`."""
    stages = " and ".join(f"{stage.keep} after step {stage.step}" for stage in run.group.pruning)
    return f"{run.group.size} images per prompt" + (f", pruned to {stages}" if stages else "")


def model_card(run: Run, model: Model, seed: int, reward: str, denoiser: str, kind: str) -> str:
    """The card of a run's weights; `reward` names its reward, `denoiser` the trained part of the pipeline, `kind` its class."""
    dtype = DTYPES[model.precision]
    tags = ["text-to-image", "grpo", *(["lora"] if run.lora else [])]
    return CARD.format(
        base=model.path,
        tags=", ".join(tags),
        method=run.method,
        reward=reward,
        iterations=run.iterations,
        prompts=run.prompts_per_iteration,
        group=group_text(run),
        steps=run.sampling.steps,
        guidance=run.sampling.guidance_scale,
        seed=seed,
        use=(ADAPTER if run.lora else WHOLE).format(base=model.path, name=denoiser, kind=kind, dtype=dtype),
    )
