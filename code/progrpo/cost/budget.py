"""What a tier costs before its first job: GPU-hours, memory per GPU, disk. Arithmetic on counted numbers; all results are estimates.

Parameters, operations and activations are counted on the official architectures, and most again by tests/cost/test_budget.py; what
else enters is an assumption, and says so. GB are 10^9 bytes.
"""

from collections.abc import Callable
from dataclasses import dataclass

from progrpo.config import Analysis, Config, Evaluation, Lora, Model, PromptSet, Run, Scorer
from progrpo.cost.flops import Costs, Phases, prompt_tflop
from progrpo.errors import UserError

GB = 1e9
RESOLUTION = 512  # at which operations and activations are counted
BYTES = {"fp32": 4, "bf16": 2, "fp16": 2}
FLOAT = 4  # bytes: trained weights, their gradients and moments, latents and the decoder are float32 always
ADAPTER_RANK = 32  # of the counted adapters
KEPT_STATES = 2 + 1  # of a training: the newest two stay while the next one is written
DECODE_GB = 0.81  # at the peak of decoding one image in float32, counted
OVERHEAD_GB = 3.0  # assumed: CUDA's context, libraries' workspaces, fragments, and the scorers' own activations
IMAGE_BYTES = 450_000  # assumed: a PNG of 512 x 512
STYLES = 4  # of HPSv2's benchmark
SCORER_PARAMETERS = {"aesthetic": 427_616_513, "imagereward": 480_000_000}  # the other kinds are ViT-H/14
VIT_H = 986_109_441
LINES = {  # prompts of a file whose manifest entry counts several files
    "data/pickscore/train.txt": 25_432,
    "data/pickscore/test.txt": 2_048,
    **{f"data/t2i-compbench/{name}_val.txt": 300 for name in ("color", "shape", "spatial", "texture")},
}


@dataclass(frozen=True)
class Network:
    """A model family at its official size: parameters; TFLOP per call of one row; GB per row of a backward pass in bf16.

    `activations` is what a forward pass leaves for the backward pass, `checkpointed` the peak of a pass with gradient checkpointing,
    both with all weights trained: with adapters it is a little less. Adapted SD-v1.4 (rank 32 in its attention) was not counted by
    operations; its backward pass is taken as SD3.5-M's, 1.12 forward passes.
    """

    denoiser: int
    adapters: int  # of rank 32
    encoders: int
    decoder: int  # the autoencoder, which is loaded whole
    latent: int  # numbers of one latent
    text: int  # numbers of one encoded prompt
    call: float
    adapted_call: float
    backward: float  # all weights
    adapted_backward: float
    decode: float
    tiny_decode: float  # TAESD or TAESD3
    reward: float  # ViT-H/14, the dearest of the scorers
    activations: float
    checkpointed: float
    gathered: int  # where weights are sharded, at most so many are whole at a time: the outermost ones and three blocks, the largest


NETWORKS = {
    "flow": Network(
        denoiser=2_243_171_520,
        adapters=18_776_064,
        encoders=123_650_304 + 694_659_840 + 4_762_310_656,  # CLIP-L, CLIP-bigG, T5-XXL
        decoder=83_819_683,
        latent=16 * 64 * 64,
        text=(77 + 128) * 4096 + 2048,
        call=2.2237,
        adapted_call=2.2469,
        backward=2 * 2.2237,
        adapted_backward=2.5222,
        decode=2.5150,
        tiny_decode=0.1414,
        reward=0.3510,
        activations=3.52,
        checkpointed=0.19,
        gathered=323_997_376,
    ),
    "diffusion": Network(
        denoiser=859_520_964,
        adapters=6_377_472,
        encoders=123_060_480,
        decoder=83_653_863,
        latent=4 * 64 * 64,
        text=77 * 768,
        call=0.8033,
        adapted_call=0.8033,
        backward=1.6035,
        adapted_backward=0.9,
        decode=2.5145,
        tiny_decode=0.1414,
        reward=0.3817,
        activations=0.94,
        checkpointed=0.24,
        gathered=180_826_244,
    ),
}


def network_of(name: str, model: Model) -> Network:
    """The counted network of a configured model; UserError for one that was not counted, as the miniature ones."""
    if model.source is None or model.resolution != RESOLUTION:
        raise UserError(
            f"models.{name}: costs are counted for the manifest's models at {RESOLUTION} x {RESOLUTION}; this one has"
            f" {f'resolution {model.resolution}' if model.source else 'no source in the manifest'}"
        )
    return NETWORKS[model.family]


# ---------------------------------------------------------------- operations


def phases_of(run: Run) -> Phases:
    """Active trajectories and pruning steps of a run's groups."""
    counts = (run.group.size, *(stage.keep for stage in run.group.pruning))
    return Phases(counts, tuple(stage.step for stage in run.group.pruning), run.sampling.steps)


def branches(scale: float) -> int:
    """Rows of the denoiser per guided output."""
    return 1 if scale == 1 else 2


def trained_step(run: Run, network: Network) -> float:
    """TFLOP of the forward and backward passes of one trained step of one trajectory, the reference's pass among them."""
    rows = branches(run.sampling.guidance_scale)
    with_gradient = rows if run.objective.unconditional_gradient else 1
    call = network.adapted_call if run.lora else network.call
    backward = network.adapted_backward if run.lora else network.backward
    again = call if run.gradient_checkpointing else 0.0  # what checkpoints dropped is computed a second time
    reference = rows * network.call if run.objective.kl_beta > 0 else 0.0
    return rows * call + with_gradient * (backward + again) + reference


def iteration_tflop(run: Run, network: Network) -> dict[str, float]:
    """TFLOP of one iteration over all ranks, by part: denoising, previews, terminal, update, total."""
    call = branches(run.sampling.guidance_scale) * (network.adapted_call if run.lora else network.call)
    scores = len(run.reward) * network.reward
    pixels = run.previews.scale**2  # of an image, of which a preview's decoder makes so many
    preview = pixels * (network.tiny_decode if run.previews.decoder else network.decode) + scores
    costs = Costs(call, preview, network.decode + scores, trained_step(run, network))
    parts = prompt_tflop(phases_of(run), costs, run.group.preview, run.trained_steps)
    return {part: run.prompts_per_iteration * value for part, value in parts.items()}


def image_tflop(network: Network, steps: int, scale: float, scorers: int) -> float:
    """TFLOP of one evaluated image: sampled with the adapted denoiser, decoded, scored."""
    return steps * branches(scale) * network.adapted_call + network.decode + scorers * network.reward


def evaluation_tflop(evaluation: Evaluation, model: Model, network: Network, images: int) -> float:
    """TFLOP of the images of one prompt set and their scores; detectors of benchmarks are left out."""
    sampling = evaluation.sampling[model.family]
    return images * image_tflop(network, sampling.steps, sampling.guidance_scale, len(evaluation.scorers))


def analysis_tflop(analysis: Analysis, network: Network, studied: Run | None = None) -> float:
    """TFLOP of the groups of an analysis; one with pairs of pruning steps also decodes and scores a preview at each of its steps.

    A gradient study, of the run `studied`, samples groups of as many other prompts for its direction, and of every trajectory takes
    a forward and a backward pass at each trained step: without a reference or checkpoints, with a detached unconditional branch.
    """
    settings = analysis.sampling
    previews = settings.steps if analysis.candidates else 0
    one = image_tflop(network, settings.steps, settings.guidance_scale, 1) + previews * (
        network.decode + network.reward
    )
    if studied is None:
        return analysis.prompt_count * analysis.group * one
    objective = studied.objective.model_copy(update={"kl_beta": 0.0, "unconditional_gradient": False})
    alike = {"sampling": settings, "objective": objective, "gradient_checkpointing": False}
    gradient = studied.trained_steps * trained_step(studied.model_copy(update=alike), network)
    return 2 * analysis.prompt_count * analysis.group * (one + gradient)


def gpu_hours(tflop: float, gpu_tflops: float, utilisation: float) -> float:
    """Hours of one GPU of so many TFLOP/s, of which the share `utilisation` is reached."""
    return tflop / (gpu_tflops * utilisation) / 3600


# ---------------------------------------------------------------- memory


def trained_parameters(run: Run, network: Network) -> int:
    """Number of parameters that a run trains."""
    return round(network.adapters * run.lora.rank / ADAPTER_RANK) if run.lora else network.denoiser


def shards_of(run: Run) -> tuple[int, int]:
    """Parts of which a rank holds one: of the denoiser's weights, and of what is trained, which adapters are not cut into."""
    shards = run.hardware.ranks if run.speed.shard else 1
    return shards, shards if run.lora is None else 1


def memory(run: Run, model: Model, scorers: list[Scorer], network: Network) -> dict[str, float]:
    """GB on each GPU while a run trains, by part, and `total`; with cached texts `total` may be the moment they are encoded."""
    trained, width = trained_parameters(run, network), BYTES[model.precision]
    ranks, full = run.hardware.ranks, run.lora is None
    shards, trained_shards = shards_of(run)
    weights = network.denoiser * (FLOAT if full else width)
    adapters = 0 if full else trained * FLOAT
    reference = weights if full and run.objective.kl_beta > 0 else 0
    scorer_bytes = sum(SCORER_PARAMETERS.get(scorer.kind, VIT_H) * FLOAT for scorer in scorers)
    encoders = width * network.encoders
    copied = run.previews.precision == "bf16" and run.previews.decoder is None
    parts = {
        "denoiser": weights / shards + adapters,
        "gathered": (network.gathered if shards > 1 else 0) * (2 * FLOAT if full else width),  # in full: with gradients
        "autocast copy": network.denoiser * width if full and width < FLOAT else 0,
        # Distributed training adds buckets, or a message, of the same size.
        "gradients": trained * FLOAT / trained_shards * (2 if ranks > trained_shards else 1),
        "AdamW": 2 * trained * FLOAT / trained_shards,
        "moving average": trained * FLOAT / trained_shards if run.ema else 0,
        "reference": reference / shards,
        "decoder": network.decoder * (FLOAT + (BYTES["bf16"] if copied else 0)),
        "reward": scorer_bytes,
        "text encoders": 0 if run.speed.text_cache else encoders,
        "rollout": _rollout_bytes(run, network, ranks, width),
        "activations": GB * activations(run, model, network),
    }
    # All are loaded, and whole, before any text is cached.
    encoding = weights + adapters + reference + encoders + parts["decoder"] + scorer_bytes
    total = max(sum(parts.values()), encoding) + GB * OVERHEAD_GB
    return {part: size / GB for part, size in {**parts, "overhead": GB * OVERHEAD_GB, "total": total}.items()}


def _rollout_bytes(run: Run, network: Network, ranks: int, width: int) -> float:
    """Latents of the trajectories that are sampled at a time, of all survivors beside them, and the prompts' texts."""
    prompts = max(1, run.prompts_per_iteration // ranks)
    at_once = min(prompts, run.speed.prompts_at_once or prompts)
    latents = at_once * states_at_peak(run)
    if at_once < prompts and not run.speed.states_on_host:
        latents += prompts * run.group.survivors * (run.sampling.steps + 1)
    return latents * network.latent * FLOAT + prompts * network.text * width


def states_at_peak(run: Run) -> int:
    """Latents of one prompt at the worst moment of its rollout: those of the steps taken, and room for what a selection keeps."""
    whole, stages = run.sampling.steps + 1, run.group.pruning
    if not stages:
        return run.group.size * whole
    counts = (run.group.size, *(stage.keep for stage in stages))
    rooms = (*(1 for _ in stages[:-1]), whole)  # one state after the other, until it is known who stays to the end
    return max(n * (s.step + 1) + s.keep * room for n, s, room in zip(counts, stages, rooms, strict=False))


def activations(run: Run, model: Model, network: Network) -> float:
    """GB that a backward pass of a micro-batch keeps, that decoding a batch takes, or a step of AdamW: whichever is most."""
    rows = 2 if run.objective.unconditional_gradient and run.sampling.guidance_scale != 1 else 1
    per_row = network.checkpointed if run.gradient_checkpointing else network.activations
    per_pair = rows * per_row * BYTES[model.precision] / BYTES["bf16"]
    if run.micro_batch == "auto":
        backward = run.speed.memory_gb * 2**30 / GB
        pairs = max(1, int(backward / per_pair))
    else:
        backward, pairs = run.micro_batch * per_pair, run.micro_batch
    decoding = (run.speed.decode_batch or run.sampling_batch or pairs) * DECODE_GB
    step = 0.0 if run.speed.fused_optimizer else trained_parameters(run, network) / shards_of(run)[1] * FLOAT / GB
    return max(backward, decoding, step)


def sampling_memory(model: Model, network: Network, batch: int, scorers: int = 0, full: bool = False) -> float:
    """GB on the GPU of a job that only samples, its text encoders beside it; `full`: all weights were trained, and are float32."""
    width = BYTES[model.precision]
    weights = network.denoiser * (FLOAT + (width if width < FLOAT else 0) if full else width) + width * network.encoders
    return (weights + FLOAT * (network.decoder + scorers * VIT_H)) / GB + batch * DECODE_GB + OVERHEAD_GB


def largest_batch(gpu_memory: float, need: float, batch: int) -> int:
    """The largest batch of images that `gpu_memory` GB allow, where `batch` of them need `need` GB; 0 when none does."""
    return min(batch, max(0, int(batch - (need - gpu_memory) / DECODE_GB)))


Case = tuple[Run, Model]
Remedy = tuple[str, Callable[[Run, Model], Case]]


def _with_cache(run: Run, model: Model) -> Case:
    return run.model_copy(update={"speed": run.speed.model_copy(update={"text_cache": "data/text"})}), model


def _with_checkpoints(run: Run, model: Model) -> Case:
    return run.model_copy(update={"gradient_checkpointing": True}), model


def _one_pair(run: Run, model: Model) -> Case:
    return run.model_copy(update={"micro_batch": 1, "sampling_batch": None}), model


def _in_parts(run: Run, model: Model) -> Case:
    settings = {"decode_batch": 1, "prompts_at_once": 1, "states_on_host": True}
    return run.model_copy(update={"speed": run.speed.model_copy(update=settings)}), model


def _fused(run: Run, model: Model) -> Case:
    return run.model_copy(update={"speed": run.speed.model_copy(update={"fused_optimizer": True})}), model


def _sharded(run: Run, model: Model) -> Case:
    possible = not run.speed.compile and model.precision != "fp16"
    return run.model_copy(update={"speed": run.speed.model_copy(update={"shard": possible})}), model


def _in_bf16(run: Run, model: Model) -> Case:
    return run, model.model_copy(update={"precision": "bf16"}) if model.precision == "fp32" else model


def _with_adapters(run: Run, model: Model) -> Case:
    return run.model_copy(update={"lora": run.lora or Lora()}), model


SAME_RESULT: tuple[Remedy, ...] = (  # up to rounding
    ("speed.text_cache", _with_cache),
    ("gradient_checkpointing", _with_checkpoints),
    ("micro_batch: 1", _one_pair),
    ("speed.fused_optimizer", _fused),
    ("speed.decode_batch: 1, prompts_at_once: 1, states_on_host", _in_parts),
)
SLOWER: tuple[Remedy, ...] = (("speed.shard", _sharded),)  # of several GPUs: each call sends weights
OTHER_RESULT: tuple[Remedy, ...] = (("precision: bf16", _in_bf16), ("lora, another experiment", _with_adapters))


def remedy(
    run: Run, model: Model, scorers: list[Scorer], network: Network, gpu_memory: float
) -> tuple[list[str], float]:
    """(settings, GB with them): those that make a run smaller, one after the other, until it fits in `gpu_memory` GB.

    One alone is preferred to several, and what changes no result to what does. The last GB may still be too many.
    """
    names: list[str] = []
    need = memory(run, model, scorers, network)["total"]
    for remedies in (SAME_RESULT, SAME_RESULT + SLOWER, SAME_RESULT + SLOWER + OTHER_RESULT):
        for name, change in remedies:
            alone = memory(*change(run, model), scorers, network)["total"]
            if alone <= gpu_memory:
                return [name], alone
        names, changed, need = [], (run, model), memory(run, model, scorers, network)["total"]
        for name, change in remedies:
            less = memory(*change(*changed), scorers, network)["total"]
            if less < need:
                names, changed, need = [*names, name], change(*changed), less
            if need <= gpu_memory:
                return names, need
    return names, need


# ---------------------------------------------------------------- disk


def prompt_count(section: PromptSet, in_source: int | None) -> int | None:
    """Number of prompts of a prompt set, from that of its source; None where it is not known before the download."""
    count = LINES.get(section.path, in_source)
    if section.limit_per_style is not None:
        count = min(STYLES * section.limit_per_style, count or STYLES * section.limit_per_style)
    if section.limit is not None:
        count = min(section.limit, count or section.limit)
    return count


def training_disk(run: Run, network: Network) -> dict[str, float]:
    """GB of a training: `states` to resume from (weights, two moments, moving average), and the `final` weights."""
    weights = FLOAT * trained_parameters(run, network) / GB
    return {"states": KEPT_STATES * (4 if run.ema else 3) * weights, "final": weights}


def text_cache_gb(config: Config, counts: dict[str, int | None]) -> float:
    """GB of all cached texts: of each model and set of training prompts, as many as its longest training sees, for every seed."""
    seen: dict[tuple[str, str], int] = {}
    for name, run in config.runs.items():
        if run.speed.text_cache:
            key, drawn = (
                (run.model, run.prompts),
                run.iterations * run.prompts_per_iteration * len(config.run_seeds(name)),
            )
            seen[key] = max(seen.get(key, 0), min(drawn, counts[run.prompts] or drawn))
    sizes = [
        count * network_of(model, config.models[model]).text * BYTES[config.models[model].precision]
        for (model, _), count in seen.items()
    ]
    return sum(sizes) / GB
