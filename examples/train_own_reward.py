"""Train your pipeline on your reward, with a run's settings: python examples/train_own_reward.py MODEL CONFIG RUN OUT"""

import sys

from diffusers import DiffusionPipeline

from progrpo import load_config, train_pipeline

PROMPTS = ["a red circle", "a blue square", "a green triangle", "a yellow circle"]


def redness(images, prompts):
    """Rewards (B,) of images (B, 3, H, W) in [0, 1]: how much redder than green and blue they are."""
    return images[:, 0].mean((1, 2)) - images[:, 1:].mean((1, 2, 3))


model, config, name, out = sys.argv[1:]
run = load_config(config).get_run(name)  # or progrpo.config.Run(...) with settings of your own
pipeline = DiffusionPipeline.from_pretrained(model)
final = train_pipeline(pipeline, redness, PROMPTS, run, out)  # its weights, for load_lora_weights or from_pretrained
