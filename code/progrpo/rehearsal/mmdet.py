"""A small random Mask2Former and the checkpoint that mmdet 2.x would have written for it; the renaming is written independently of
the converter's rules."""

import re
from pathlib import Path

import torch
from transformers import Mask2FormerConfig, Mask2FormerForUniversalSegmentation, SwinConfig

from progrpo.benchmarks.geneval.vocabulary import geneval_vocabulary
from progrpo.rehearsal.weights import write_pickle

FILE = "mask2former_swin-s-p4-w7-224_lsj_8x2_50e_coco_20220504_001756-743b7d99.pth"


def detector_config(classes: tuple[str, ...]) -> Mask2FormerConfig:
    """A Mask2Former of the benchmark's structure (two stages with more than one block) and of little size."""
    backbone = SwinConfig(
        image_size=64,
        embed_dim=16,
        depths=[1, 2, 1, 1],
        num_heads=[1, 2, 2, 4],
        window_size=4,
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )
    return Mask2FormerConfig(
        backbone_config=backbone,
        feature_size=32,
        mask_feature_size=32,
        hidden_dim=32,
        encoder_feedforward_dim=64,
        dim_feedforward=64,
        encoder_layers=2,
        decoder_layers=3,
        num_attention_heads=1,  # 32 wide, as the benchmark's
        num_queries=12,
        id2label=dict(enumerate(classes)),
        label2id={name: k for k, name in enumerate(classes)},
    )


def random_detector(classes: tuple[str, ...], seed: int = 0) -> Mask2FormerForUniversalSegmentation:
    """A detector whose every parameter is random, zeros and ones of the usual initialisation included."""
    torch.manual_seed(seed)
    model = Mask2FormerForUniversalSegmentation(detector_config(classes)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.1)
    return model


def swin_to_mmdet_merging(weight: torch.Tensor) -> torch.Tensor:
    """Channels of patch merging from (column, row, channel) to nn.Unfold's (channel, row, column)."""
    channels = weight.shape[-1] // 4
    blocks = weight.reshape(*weight.shape[:-1], 2, 2, channels)  # column, row, channel
    return blocks.transpose(-1, -3).reshape(weight.shape)


MMDET_NAMES = [
    (r"^model\.pixel_level_module\.encoder\.swin\.embeddings\.patch_embeddings\.", "backbone.patch_embed."),
    (r"^model\.pixel_level_module\.encoder\.swin\.embeddings\.norm", "backbone.patch_embed.norm"),
    (r"^model\.pixel_level_module\.encoder\.swin\.encoder\.layers", "backbone.stages"),
    (r"^model\.pixel_level_module\.decoder", "panoptic_head.pixel_decoder"),
    (r"^model\.transformer_module\.decoder\.layers", "panoptic_head.transformer_decoder.layers"),
    (r"^model\.transformer_module\.decoder\.layernorm", "panoptic_head.transformer_decoder.post_norm"),
    (r"^model\.transformer_module\.queries_embedder", "panoptic_head.query_embed"),
    (r"^model\.transformer_module\.queries_features", "panoptic_head.query_feat"),
    (r"^model\.transformer_module\.level_embed", "panoptic_head.level_embed"),
    (r"^class_predictor", "panoptic_head.cls_embed"),
    (r"attention\.relative_position_bias\.", "attn.w_msa."),
    (r"attention\.o_proj", "attn.w_msa.proj"),
    (r"layernorm_before", "norm1"),
    (r"layernorm_after", "norm2"),
    (r"mlp\.fc1", "ffn.layers.0.0"),
    (r"mlp\.fc2", "ffn.layers.1"),
    (r"(pixel_decoder\.encoder\.layers\.\d+)\.self_attn\.", r"\1.attentions.0."),
    (r"(pixel_decoder\.encoder\.layers\.\d+)\.self_attn_layer_norm", r"\1.norms.0"),
    (r"(pixel_decoder\.encoder\.layers\.\d+)\.final_layer_norm", r"\1.norms.1"),
    (r"\.input_projections\.(\d+)\.0", r".input_convs.\1.conv"),
    (r"\.input_projections\.(\d+)\.1", r".input_convs.\1.gn"),
    (r"\.adapter_1\.0", ".lateral_convs.0.conv"),
    (r"\.adapter_1\.1", ".lateral_convs.0.gn"),
    (r"\.layer_1\.0", ".output_convs.0.conv"),
    (r"\.layer_1\.1", ".output_convs.0.gn"),
    (r"mask_projection", "mask_feature"),
    (r"pixel_decoder\.level_embed", "pixel_decoder.level_encoding.weight"),
    (r"(transformer_decoder\.layers\.\d+)\.cross_attn\.", r"\1.attentions.0.attn."),
    (r"(transformer_decoder\.layers\.\d+)\.self_attn\.out_proj", r"\1.attentions.1.attn.out_proj"),
    (r"(transformer_decoder\.layers\.\d+)\.cross_attn_layer_norm", r"\1.norms.0"),
    (r"(transformer_decoder\.layers\.\d+)\.self_attn_layer_norm", r"\1.norms.1"),
    (r"(transformer_decoder\.layers\.\d+)\.final_layer_norm", r"\1.norms.2"),
    (r"\.fc1\.", ".ffns.0.layers.0.0."),
    (r"\.fc2\.", ".ffns.0.layers.1."),
]


def to_mmdet(model: Mask2FormerForUniversalSegmentation) -> dict[str, torch.Tensor]:
    """The state dict that mmdet 2.x would have saved for this model."""
    state = {}
    own = model.state_dict()
    for key, tensor in own.items():
        if key.startswith("criterion.") or ".swin.layernorm." in key or re.search(r"\.[kv]_proj\.", key):
            continue
        name = key
        if re.search(r"\.q_proj\.", key):
            tensor = torch.cat([own[key.replace("q_proj", f"{letter}_proj")] for letter in "qkv"])
            name = re.sub(r"attention\.q_proj\.", "attn.w_msa.qkv.", name)
            name = re.sub(r"self_attn\.q_proj\.", "attentions.1.attn.in_proj_", name)
        if ".downsample." in key:
            tensor = swin_to_mmdet_merging(tensor)
        stage = re.search(r"hidden_states_norms\.stage(\d)\.(\w+)", name)
        mask = re.search(r"mask_embedder\.(\d)\.0\.(\w+)", name)
        if stage:
            name = f"backbone.norm{int(stage[1]) - 1}.{stage[2]}"
        elif mask:
            name = f"panoptic_head.mask_embed.{2 * int(mask[1])}.{mask[2]}"
        for pattern, replacement in MMDET_NAMES:
            name = re.sub(pattern, replacement, name)
        state[name] = tensor.clone()
        if name.endswith("relative_position_bias_table"):
            state[name.replace("bias_table", "index")] = torch.zeros(16, 16, dtype=torch.long)
    return state


def write_mask2former(folder: Path) -> None:
    """The benchmark's checkpoint: what mmdet notes of the training, and the state dict."""
    classes = geneval_vocabulary().classes
    meta = {"mmdet_version": "2.24.0", "epoch": 50, "iter": 368750, "CLASSES": classes, "hook_msgs": {}}
    write_pickle(folder / FILE, {"meta": meta, "state_dict": to_mmdet(random_detector(classes))})
