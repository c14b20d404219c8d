"""Model folders of other people: what their configurations may ask for, and one line for whatever a library says of them."""

import json
import warnings
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from progrpo.errors import UserError
from progrpo.files import read_object
from progrpo.safe_names import path_inside

CONFIGS = ("config.json", "scheduler_config.json", "preprocessor_config.json", "open_clip_config.json")
DENOISERS = ("SD3Transformer2DModel", "UNet2DConditionModel")  # whose weights are all used; encoders carry old buffers
MOST_LAYERS = 200  # far beyond any model here; a library would build a million of them before it looks at the weights
LARGEST = 10**6  # of any other whole number: vocabularies, widths, steps


@contextmanager
def reading_model(where: Path | str) -> Iterator[None]:
    """UserError, beginning with `where`, for whatever a library raises inside; each has half a dozen kinds of its own.

    Its warnings, of many lines, that a setting is outdated are not shown: a setting counts as it stands, or is refused.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except UserError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise UserError(f"{where}: cannot be loaded ({reason}); fetch the model again") from error


def require_sane(folder: Path) -> None:
    """UserError names the configuration in a folder that is not JSON, asks for sizes of no model or for code from elsewhere,
    and the index of shards that names a file outside the folder."""
    for name in CONFIGS:
        if (folder / name).is_file():
            _require_bounded(read_object(folder / name), "", folder / name)
    for index in sorted(folder.glob("*.index*.json")):
        shards = read_object(index).get("weight_map")
        if not isinstance(shards, dict) or not all(isinstance(shard, str) for shard in shards.values()):
            raise UserError(f'{index}: "weight_map" must give the file of each weight; fetch the model again')
        for shard in sorted(set(shards.values())):
            try:
                path_inside(folder, shard)
            except ValueError as error:
                raise UserError(f"{index}: {error}") from None


def _require_bounded(value: Any, key: str, where: Path) -> None:
    if isinstance(value, dict):
        for name, item in value.items():
            _require_bounded(item, name, where)
    elif isinstance(value, list):
        if len(value) > MOST_LAYERS and not all(isinstance(item, str) for item in value):
            raise UserError(f"{where}: {key[:60]}: {len(value)} entries are more than any model here has")
        for item in value:
            _require_bounded(item, key, where)
    elif isinstance(value, int):
        most = MOST_LAYERS if "layer" in key or "depth" in key else LARGEST
        if abs(value) > most:
            raise UserError(f"{where}: {key[:60]}: {str(value)[:20]} is more than any model here has (at most {most})")
    elif isinstance(value, str) and key.endswith("attn_implementation") and "/" in value:
        raise UserError(f"{where}: {key} names code to download ({value[:60]}), which is never run; remove the key")


def holds_safetensors(folder: Path, variant: str | None = None) -> bool:
    """Whether a folder holds safetensors under the names of transformers or diffusers, those of a variant where one is named.

    Others' files, as open_clip's or an adapter's, may lie beside weights that are no safetensors.
    """
    of = f".{variant}" if variant else ""
    names = (
        f"{name}{end}"
        for name in ("model", "diffusion_pytorch_model")
        for end in (f"{of}.safetensors", f".safetensors.index{of}.json")
    )
    return any((folder / name).is_file() for name in names)


def check_model_folder(folder: Path, model_type: str) -> None:
    """UserError unless the folder holds a transformers model of this type with weights."""
    if not (folder / "config.json").is_file():
        raise UserError(f"{folder}: no model there (config.json is missing); see `progrpo fetch --list`")
    found = read_object(folder / "config.json").get("model_type")
    if found != model_type:
        raise UserError(f"{folder}: holds a model of type {found!r}; expected {model_type!r}")
    if not holds_safetensors(folder) and not any(folder.glob("pytorch_model*.bin")):
        raise UserError(f"{folder}: the weights (model.safetensors) are missing; fetch the model again")


def open_network(kind: Any, folder: Path, absent: Collection[str] = (), **options: Any) -> Any:
    """A model of transformers or diffusers, class `kind`, with all its weights, but those `absent`, from a folder.

    A library would fill a weight that the files lack with random numbers. UserError names it, or one that holds NaN or infinity.
    """
    require_sane(folder)
    options |= {"local_files_only": True, "use_safetensors": holds_safetensors(folder, options.get("variant"))}
    with reading_model(folder):
        network, report = kind.from_pretrained(folder, output_loading_info=True, **options)
    for key in sorted({str(key) for key in report["missing_keys"]} - set(absent)):
        raise UserError(f"{folder}: weight {key!r} is missing; fetch the model again")
    if kind.__name__ in DENOISERS and (idle := sorted(map(str, report.get("unexpected_keys", ())))):
        raise UserError(
            f"{folder}: weight {idle[0]!r} has no place in a model of this config.json; fetch the model again"
        )
    for key, *_ in report.get("mismatched_keys", ()):
        raise UserError(f"{folder}: weight {key!r} has another shape; fetch the model again")
    for key, value in network.named_parameters():
        if not value.isfinite().all():
            raise UserError(f"{folder}: weight {key!r} holds NaN or infinity; fetch the model again")
    return network


def open_tokenizer(folder: Path, network: Any) -> Any:
    """The tokenizer of a folder, for a model of transformers that reads text; UserError when the two do not belong together."""
    from transformers import AutoTokenizer  # here: most commands that read files need no networks

    with reading_model(f"{folder}: the tokenizer"):
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        require_tokens(tokenizer, getattr(network.config, "text_config", network.config))
    return tokenizer


def require_tokens(tokenizer: Any, config: Any, pooled: bool = True) -> None:
    """ValueError when a text encoder of this configuration and a tokenizer do not belong together.

    transformers makes a tokenizer of a few tokens from a folder that lacks its vocabulary, and one that spells words from a cut
    `merges.txt`. `pooled`: the text at the end token is used, which CLIP finds by its number, or where that is 2 as the largest.
    """
    known, knows = len(tokenizer), config.vocab_size
    if not 0.9 * knows <= known <= knows:  # some vocabularies are padded to a round number
        raise ValueError(f"its tokenizer has {known} tokens, where the text encoder has {knows}")
    require_merges(tokenizer)
    end = getattr(config, "eos_token_id", None)
    if pooled and config.model_type.startswith("clip") and end not in (2, tokenizer.eos_token_id):
        raise ValueError(f"the text encoder's eos_token_id is {end}, the tokenizer's {tokenizer.eos_token_id}")


def require_merges(tokenizer: Any) -> None:
    """ValueError when a tokenizer that joins letters (BPE) has no rules for much of its vocabulary."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    model = json.loads(backend.to_str())["model"] if backend is not None else {}
    if model.get("type") != "BPE":
        return
    suffix, special = model.get("end_of_word_suffix") or "", set(tokenizer.all_special_tokens)
    joined = [token for token in model["vocab"] if len(token.removesuffix(suffix)) > 1 and token not in special]
    if len(model["merges"]) < 0.9 * len(joined):
        raise ValueError(
            f"its tokenizer has {len(model['merges'])} merges for {len(joined)} joined tokens: merges.txt is cut, or missing"
        )
