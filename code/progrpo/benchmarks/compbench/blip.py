"""BLIP-VQA on transformers' BLIP classes, from a model folder or from the original checkpoint."""

import math
from pathlib import Path

import torch
from torch import Tensor
from transformers import BlipConfig, BlipForQuestionAnswering

from progrpo.errors import UserError
from progrpo.files import require_folder
from progrpo.model_files import check_model_folder, open_network, open_tokenizer, reading_model
from progrpo.rewards.base import freeze, load_state
from progrpo.rewards.imagereward import HEAD_WIDTH, MAX_TOKENS, blip_vision_state

EPSILONS = 1e-6, 1e-12  # of the layer norms of BLIP's image and text towers
BOS, ENC = "[DEC]", "[ENC]"  # the two tokens BLIP adds behind BERT's vocabulary: 30522 and 30523
TIED = {  # one tensor under two names; older files may hold only the second
    "text_decoder.cls.predictions.decoder.bias": "text_decoder.cls.predictions.bias",
    "text_decoder.cls.predictions.decoder.weight": "text_decoder.bert.embeddings.word_embeddings.weight",
}


def config_of(state: dict[str, Tensor]) -> BlipConfig:
    """The architecture of a converted original state dict: its sizes from the shapes, the rest as BLIP's code has it.

    The published file is ViT-B/16 at 480 px and BERT-base with cross-attention. BLIP's attention heads are 64 wide, its epsilons 1e-6
    (vision) and 1e-12 (text). The hub's Salesforce/blip-vqa folders say 384 px and vision eps 1e-5; both change the numbers.
    KeyError for a state dict that lacks an embedding.
    """
    width, _, patch, _ = state["vision_model.embeddings.patch_embedding.weight"].shape
    patches = state["vision_model.embeddings.position_embedding"].shape[1] - 1
    words, text_width = state["text_encoder.embeddings.word_embeddings.weight"].shape
    vision = dict(
        _tower(state, "vision_model.encoder.layers", "mlp.fc1", width),
        image_size=math.isqrt(patches) * patch,
        patch_size=patch,
        layer_norm_eps=EPSILONS[0],
    )
    text = dict(
        _tower(state, "text_encoder.encoder.layer", "intermediate.dense", text_width),
        vocab_size=words,
        encoder_hidden_size=width,
        layer_norm_eps=EPSILONS[1],
        is_decoder=True,
        max_position_embeddings=state["text_encoder.embeddings.position_embeddings.weight"].shape[0],
    )
    return BlipConfig(text_config=text, vision_config=vision)


def _tower(state: dict[str, Tensor], layers: str, first: str, width: int) -> dict[str, int]:
    numbers = {int(key.removeprefix(f"{layers}.").split(".")[0]) for key in state if key.startswith(f"{layers}.")}
    return {
        "hidden_size": width,
        "intermediate_size": state[f"{layers}.0.{first}.weight"].shape[0],
        "num_hidden_layers": 1 + max(numbers),
        "num_attention_heads": max(1, width // HEAD_WIDTH),
    }


def convert_blip_vqa(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """transformers' keys of an original BLIP-VQA state dict (`visual_encoder.`, `text_encoder.`, `text_decoder.`).

    The vision tower is renamed by rules, the two BERTs keep their names; computed position ids are dropped.
    """
    vision = blip_vision_state(state, "visual_encoder.")
    texts = {key: value for key, value in state.items() if not key.startswith("visual_encoder.")}
    rest = {key: value for key, value in texts.items() if not key.endswith("position_ids")}
    return {f"vision_model.{key}": value for key, value in vision.items()} | rest


class BlipVqa:
    """A BLIP-VQA model with its tokenizer."""

    def __init__(self, model: BlipForQuestionAnswering, tokenizer):
        known = tokenizer.get_vocab()
        tokenizer.add_tokens([token for token in (BOS, ENC) if token not in known], special_tokens=True)
        vocabulary = tokenizer.get_vocab()
        absent = [word for word in ("yes", "no", BOS, ENC) if word not in vocabulary]
        if absent:
            raise UserError(f"BLIP-VQA: the tokenizer has no token {absent[0]!r}; use that of bert-base-uncased")
        self.bos, self.enc, self.yes, self.no = (vocabulary[word] for word in (BOS, ENC, "yes", "no"))
        rows = model.config.text_config.vocab_size
        if max(self.bos, self.enc) >= rows:
            raise UserError(
                f"BLIP-VQA: the tokenizer has {len(vocabulary)} tokens, the model {rows}; they do not belong together"
            )
        self.model, self.tokenizer = model, tokenizer
        self.image_size = model.config.vision_config.image_size
        self.most_tokens = min(MAX_TOKENS, model.config.text_config.max_position_embeddings)

    def tokens(self, question: str) -> tuple[int, ...]:
        """Token ids of a question, the first replaced by [ENC] as the original does by hand."""
        ids = self.tokenizer(question, truncation=True, max_length=self.most_tokens)["input_ids"]
        return (self.enc, *ids[1:])

    def first_token_logits(self, patches: Tensor, ids: Tensor) -> Tensor:
        """Logits (N, V) of the answer's first token from image patches (N, P, D) and unpadded question ids (N, L)."""
        hidden = self.model.text_encoder(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            encoder_hidden_states=patches,
            encoder_attention_mask=torch.ones(patches.shape[:2], dtype=torch.long, device=ids.device),
        ).last_hidden_state
        start = torch.full((len(ids), 1), self.bos, device=ids.device)
        decoded = self.model.text_decoder(
            input_ids=start, encoder_hidden_states=hidden, encoder_attention_mask=torch.ones_like(ids)
        )
        return decoded.logits[:, 0]

    @torch.no_grad()
    def probability(self, patches: Tensor, ids: Tensor) -> Tensor:
        """P(yes) / (P(yes) + P(no)) (N,) from image patches (N, P, D) and unpadded question ids (N, L)."""
        p = self.first_token_logits(patches, ids).float().softmax(-1)
        return p[:, self.yes] / (p[:, self.yes] + p[:, self.no])


def from_original(checkpoint: Path) -> BlipForQuestionAnswering:
    """transformers' model with the weights of an original .pth, of the sizes in the file.

    UserError: no such file, a missing or unexpected weight, a wrong shape.
    """
    if not checkpoint.is_file():
        raise UserError(f"BLIP-VQA: {checkpoint}: no such file; `progrpo fetch blip-vqa` gets it")
    with reading_model(f"BLIP-VQA: {checkpoint}"):
        stored = torch.load(checkpoint, map_location="cpu", weights_only=True)
        state = convert_blip_vqa(stored.get("model", stored))
        try:
            config = config_of(state)
        except KeyError as error:
            raise UserError(
                f"BLIP-VQA: {checkpoint}: key {error} is missing; the file is for another architecture"
            ) from None
    model = BlipForQuestionAnswering(config)
    tied = {key: state[other] for key, other in TIED.items() if other in state}
    load_state("BLIP-VQA", checkpoint, model, {**tied, **state})
    return model


def load_vqa(path: Path | str, device: torch.device | str = "cpu", tokenizer: Path | None = None) -> BlipVqa:
    """BLIP-VQA from a transformers folder, or from the original .pth with a folder of bert-base-uncased's tokenizer.

    UserError: nothing there, another kind of model, other epsilons than the original's, missing weights, no tokenizer.
    """
    path = Path(path)
    if path.suffix == ".pth":
        if tokenizer is None:
            raise UserError(
                f"{path}: an original checkpoint has no tokenizer; give that of bert-base-uncased (--tokenizer)"
            )
        model = from_original(path)
    else:
        check_model_folder(path, "blip")
        model = open_network(BlipForQuestionAnswering, path)
        epsilons = model.config.vision_config.layer_norm_eps, model.config.text_config.layer_norm_eps
        if epsilons != EPSILONS:
            raise UserError(
                f"{path}: BLIP with layer_norm_eps {epsilons[0]:g} (vision) and {epsilons[1]:g} (text), where the original has"
                f" {EPSILONS[0]:g} and {EPSILONS[1]:g}: its answers are others, as those of the hub's Salesforce/blip-vqa folders;"
                " take the original .pth (`progrpo fetch blip-vqa`)"
            )
    return BlipVqa(freeze(model, torch.device(device)), open_tokenizer(tokenizer or path, model))


def save_vqa(folder: Path | str, vqa: BlipVqa) -> None:
    """Write model and tokenizer as a transformers folder; UserError where a file is in its place."""
    require_folder(folder)
    vqa.model.save_pretrained(folder)
    vqa.tokenizer.save_pretrained(folder)
