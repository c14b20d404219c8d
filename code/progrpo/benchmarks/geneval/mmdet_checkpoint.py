"""The benchmark's own detector on transformers: key map from mmdet 2.x's Mask2Former (Swin backbone) to
transformers' classes.

Source of the layout: mmdet 2.27 configs/mask2former/mask2former_swin-s-p4-w7-224_lsj_8x2_50e_coco.py and the
modules it builds (backbones/swin.py, plugins/msdeformattn_pixel_decoder.py, dense_heads/mask2former_head.py).
Both are ports of one original, so levels run from low to high resolution in both and relative-position tables
have one order. What differs beyond names:

- Swin's query, key and value are one matrix in mmdet and three in transformers; so are those of the decoder's
  self-attention (its cross-attention is one matrix in both);
- patch merging: mmdet gathers the 2 x 2 neighbours by nn.Unfold, so its 4C channels run (channel, row,
  column); transformers keeps the original Swin's (column, row, channel). The columns of `reduction` and the
  entries of `norm` are reordered.
"""

import re

import torch
from torch import Tensor

_STAGE = r"backbone\.stages\.(\d+)"
_BLOCK = _STAGE + r"\.blocks\.(\d+)"
SWIN = "model.pixel_level_module.encoder.swin"
_SWIN_BLOCK = rf"{SWIN}.encoder.layers.\1.blocks.\2"
_PIXEL = r"panoptic_head\.pixel_decoder"
_HF_PIXEL = "model.pixel_level_module.decoder"
_PIXEL_LAYER = _PIXEL + r"\.encoder\.layers\.(\d+)"
_HF_PIXEL_LAYER = rf"{_HF_PIXEL}.encoder.layers.\1"
_LAYER = r"panoptic_head\.transformer_decoder\.layers\.(\d+)"
_HF_DECODER = "model.transformer_module.decoder"
_HF_LAYER = rf"{_HF_DECODER}.layers.\1"
_HF_MASK = rf"{_HF_DECODER}.mask_predictor.mask_embedder"

RULES = [
    (r"backbone\.patch_embed\.projection\.", f"{SWIN}.embeddings.patch_embeddings.projection."),
    (r"backbone\.patch_embed\.norm\.", f"{SWIN}.embeddings.norm."),
    (_BLOCK + r"\.norm1\.", f"{_SWIN_BLOCK}.layernorm_before."),
    (_BLOCK + r"\.norm2\.", f"{_SWIN_BLOCK}.layernorm_after."),
    (
        _BLOCK + r"\.attn\.w_msa\.relative_position_bias_table",
        f"{_SWIN_BLOCK}.attention.relative_position_bias.relative_position_bias_table",
    ),
    (_BLOCK + r"\.attn\.w_msa\.qkv\.", f"{_SWIN_BLOCK}.attention.{{qkv}}_proj."),
    (_BLOCK + r"\.attn\.w_msa\.proj\.", f"{_SWIN_BLOCK}.attention.o_proj."),
    (_BLOCK + r"\.ffn\.layers\.0\.0\.", f"{_SWIN_BLOCK}.mlp.fc1."),
    (_BLOCK + r"\.ffn\.layers\.1\.", f"{_SWIN_BLOCK}.mlp.fc2."),
    (_STAGE + r"\.downsample\.", rf"{SWIN}.encoder.layers.\1.downsample."),
    (r"backbone\.norm0\.", "model.pixel_level_module.encoder.hidden_states_norms.stage1."),
    (r"backbone\.norm1\.", "model.pixel_level_module.encoder.hidden_states_norms.stage2."),
    (r"backbone\.norm2\.", "model.pixel_level_module.encoder.hidden_states_norms.stage3."),
    (r"backbone\.norm3\.", "model.pixel_level_module.encoder.hidden_states_norms.stage4."),
    (_PIXEL + r"\.input_convs\.(\d+)\.conv\.", rf"{_HF_PIXEL}.input_projections.\1.0."),
    (_PIXEL + r"\.input_convs\.(\d+)\.gn\.", rf"{_HF_PIXEL}.input_projections.\1.1."),
    (_PIXEL_LAYER + r"\.attentions\.0\.", f"{_HF_PIXEL_LAYER}.self_attn."),
    (_PIXEL_LAYER + r"\.ffns\.0\.layers\.0\.0\.", f"{_HF_PIXEL_LAYER}.fc1."),
    (_PIXEL_LAYER + r"\.ffns\.0\.layers\.1\.", f"{_HF_PIXEL_LAYER}.fc2."),
    (_PIXEL_LAYER + r"\.norms\.0\.", f"{_HF_PIXEL_LAYER}.self_attn_layer_norm."),
    (_PIXEL_LAYER + r"\.norms\.1\.", f"{_HF_PIXEL_LAYER}.final_layer_norm."),
    (_PIXEL + r"\.level_encoding\.weight", f"{_HF_PIXEL}.level_embed"),
    (_PIXEL + r"\.lateral_convs\.0\.conv\.", f"{_HF_PIXEL}.adapter_1.0."),
    (_PIXEL + r"\.lateral_convs\.0\.gn\.", f"{_HF_PIXEL}.adapter_1.1."),
    (_PIXEL + r"\.output_convs\.0\.conv\.", f"{_HF_PIXEL}.layer_1.0."),
    (_PIXEL + r"\.output_convs\.0\.gn\.", f"{_HF_PIXEL}.layer_1.1."),
    (_PIXEL + r"\.mask_feature\.", f"{_HF_PIXEL}.mask_projection."),
    (_LAYER + r"\.attentions\.0\.attn\.", f"{_HF_LAYER}.cross_attn."),
    (_LAYER + r"\.attentions\.1\.attn\.in_proj_", f"{_HF_LAYER}.self_attn.{{qkv}}_proj."),
    (_LAYER + r"\.attentions\.1\.attn\.out_proj\.", f"{_HF_LAYER}.self_attn.out_proj."),
    (_LAYER + r"\.norms\.0\.", f"{_HF_LAYER}.cross_attn_layer_norm."),
    (_LAYER + r"\.norms\.1\.", f"{_HF_LAYER}.self_attn_layer_norm."),
    (_LAYER + r"\.norms\.2\.", f"{_HF_LAYER}.final_layer_norm."),
    (_LAYER + r"\.ffns\.0\.layers\.0\.0\.", f"{_HF_LAYER}.fc1."),
    (_LAYER + r"\.ffns\.0\.layers\.1\.", f"{_HF_LAYER}.fc2."),
    (r"panoptic_head\.transformer_decoder\.post_norm\.", f"{_HF_DECODER}.layernorm."),
    (r"panoptic_head\.query_embed\.", "model.transformer_module.queries_embedder."),
    (r"panoptic_head\.query_feat\.", "model.transformer_module.queries_features."),
    (r"panoptic_head\.level_embed\.", "model.transformer_module.level_embed."),
    (r"panoptic_head\.cls_embed\.", "class_predictor."),
    (r"panoptic_head\.mask_embed\.0\.", f"{_HF_MASK}.0.0."),
    (r"panoptic_head\.mask_embed\.2\.", f"{_HF_MASK}.1.0."),
    (r"panoptic_head\.mask_embed\.4\.", f"{_HF_MASK}.2.0."),
]
COMPUTED = re.compile(r"\.relative_position_index$")  # buffers that transformers computes
NOT_IN_MMDET = ("criterion.empty_weight", f"{SWIN}.layernorm.weight", f"{SWIN}.layernorm.bias")  # unused in inference
UNFOLD_TO_SWIN = (0, 2, 1, 3)  # (row, column) of mmdet's q-th neighbour -> transformers' (column, row)


def swin_merging_order(weight: Tensor) -> Tensor:
    """Reorder the last axis (4C) of patch merging's `reduction` (2C, 4C) or `norm` (4C,) from mmdet's order
    to transformers'."""
    channels = weight.shape[-1] // 4
    by_channel = weight.reshape(*weight.shape[:-1], channels, 4)
    return by_channel[..., UNFOLD_TO_SWIN].transpose(-1, -2).reshape(weight.shape).contiguous()


def convert_key(key: str) -> str | None:
    """transformers' name of an mmdet key, with "{qkv}" where one tensor becomes three; None when no rule
    knows the key."""
    for pattern, replacement in RULES:
        if re.match(pattern, key):
            return re.sub("^" + pattern, replacement, key)
    return None


def convert_mmdet(state: dict[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """(state dict in transformers' layout, mmdet keys that no rule knows) of an mmdet 2.x Mask2Former state
    dict.

    The result lacks only what has no counterpart in mmdet and plays no part in inference (`NOT_IN_MMDET`).
    """
    converted, unknown = {}, []
    for key, tensor in state.items():
        if COMPUTED.search(key):
            continue
        name = convert_key(key)
        if name is None:
            unknown.append(key)
        elif "{qkv}" in name:
            for letter, part in zip("qkv", torch.chunk(tensor, 3), strict=True):
                converted[name.format(qkv=letter)] = part.clone()
        else:
            converted[name] = swin_merging_order(tensor) if ".downsample." in name else tensor
    return converted, unknown
