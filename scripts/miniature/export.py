"""The trained model as a checkpoint: MLX's converted layout (what is shipped) or the released one (for other tools)."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch  # pyright: ignore[reportMissingImports]
from torch import Tensor  # pyright: ignore[reportMissingImports]

from .mxfp4 import dequantise, pack, quantise
from .tokenizer import BPE_ENTRIES, CONTROL, write_json
from .torch_model import Shape
from .torch_vision import VisionShape

QUANTIZATION = {"group_size": 32, "bits": 4, "mode": "mxfp4"}
# Small and sensitive, so kept in float32; everything else that is not an expert is bfloat16.
PRECISE = (
    *("A_log", "dt_bias", "norm.weight", "layernorm.weight", "norm_embedding.weight", "norm_hidden.weight"),
    *("conv1d.weight", "mlp.gate.weight", "shared_expert_gate.weight", "in_proj_a.weight", "in_proj_b.weight"),
)
DTYPES = {torch.float32: "F32", torch.bfloat16: "BF16", torch.uint32: "U32", torch.uint8: "U8"}


# Limits in pixels, small as the tower's pictures are: 64 x 64 to 128 x 128, and of a clip 24 frames of 64 x 64.
PICTURE_LIMITS = {"shortest_edge": 64 * 64, "longest_edge": 128 * 128}
CLIP_LIMITS = {"shortest_edge": 64 * 64, "longest_edge": 24 * 64 * 64}


def config(shape: Shape, vision: VisionShape) -> dict[str, Any]:
    """config.json in the released, nested form."""
    ids = {content: BPE_ENTRIES + place for place, (content, _) in enumerate(CONTROL)}
    kinds = ["full_attention" if (i + 1) % shape.interval == 0 else "linear_attention" for i in range(shape.layers)]
    text = {
        "model_type": "qwen3_5_moe_text",
        "vocab_size": shape.vocab,
        "hidden_size": shape.hidden,
        "num_hidden_layers": shape.layers,
        "layer_types": kinds,
        "full_attention_interval": shape.interval,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "head_dim": shape.head_dim,
        "attention_bias": False,
        "attention_dropout": 0.0,
        "attn_output_gate": True,
        "linear_num_key_heads": shape.gdn_k_heads,
        "linear_num_value_heads": shape.gdn_v_heads,
        "linear_key_head_dim": shape.gdn_dim,
        "linear_value_head_dim": shape.gdn_dim,
        "linear_conv_kernel_dim": shape.conv,
        "mamba_ssm_dtype": "float32",
        "num_experts": shape.experts,
        "num_experts_per_tok": shape.top_k,
        "moe_intermediate_size": shape.moe,
        "shared_expert_intermediate_size": shape.shared,
        "mlp_only_layers": [],
        "hidden_act": "silu",
        "rms_norm_eps": 1e-6,
        "tie_word_embeddings": False,
        "max_position_embeddings": 32768,
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": shape.theta,
            "partial_rotary_factor": shape.rotary / shape.head_dim,
            "mrope_section": [3, 3, 2],
            "mrope_interleaved": True,
        },
        "mtp_num_hidden_layers": 1,
        "mtp_use_dedicated_embeddings": False,
        "bos_token_id": None,
        "eos_token_id": ids["<|endoftext|>"],
        "pad_token_id": None,
        "dtype": "bfloat16",
    }
    return {
        "architectures": ["Qwen3_5MoeForConditionalGeneration"],
        "model_type": "qwen3_5_moe",
        "text_config": text,
        "vision_config": {
            "model_type": "qwen3_5_moe_vision",
            "depth": vision.depth,
            "hidden_size": vision.hidden,
            "hidden_act": "gelu_pytorch_tanh",
            "intermediate_size": vision.intermediate,
            "num_heads": vision.heads,
            "in_channels": 3,
            "patch_size": vision.patch,
            "temporal_patch_size": vision.temporal,
            "spatial_merge_size": vision.merge,
            "out_hidden_size": vision.out,
            "num_position_embeddings": vision.side**2,
            "deepstack_visual_indexes": [],
        },
        "tie_word_embeddings": False,
        "image_token_id": ids["<|image_pad|>"],
        "video_token_id": ids["<|video_pad|>"],
        "vision_start_token_id": ids["<|vision_start|>"],
        "vision_end_token_id": ids["<|vision_end|>"],
    }


def preprocessors(vision: VisionShape) -> dict[str, dict[str, Any]]:
    """The released processors' settings, by file name."""
    common = {
        "patch_size": vision.patch, "temporal_patch_size": vision.temporal, "merge_size": vision.merge,
        "image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5], "do_resize": True, "resample": 3,
        "do_rescale": True, "rescale_factor": 1 / 255, "do_normalize": True, "do_convert_rgb": True,
    }  # fmt: skip
    picture = {"image_processor_type": "Qwen2VLImageProcessorFast", "size": PICTURE_LIMITS}
    clip = {"video_processor_type": "Qwen3VLVideoProcessor", "size": CLIP_LIMITS, "fps": 2, "min_frames": 4,
            "max_frames": 768, "do_sample_frames": True}  # fmt: skip
    return {"preprocessor_config.json": common | picture, "video_preprocessor_config.json": common | clip}


def _stored(name: str, tensor: Tensor) -> Tensor:
    precise = name.endswith(PRECISE) or (name.startswith("visual.") and tensor.ndim == 1)
    return tensor.float() if precise else tensor.bfloat16()


def _is_zero_centred(name: str) -> bool:
    return name.endswith(("norm.weight", "layernorm.weight", "norm_embedding.weight", "norm_hidden.weight")) and (
        "linear_attn.norm" not in name and not name.startswith("visual.")
    )


def converted(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """MLX's names: norms as 1 + w, convolutions channels last, routed experts split and packed as MXFP4."""
    out: dict[str, Tensor] = {}
    for name, tensor in state.items():
        if name.startswith("visual."):
            value = _stored(name, tensor)
            out["vision_tower." + name.removeprefix("visual.")] = (
                value.permute(0, 2, 3, 4, 1).contiguous() if value.ndim == 5 else value
            )
            continue
        home = (
            name
            if name.startswith("mtp.")
            else "language_model." + ("" if name.startswith("lm_head") else "model.") + name
        )
        if name.endswith("experts.gate_up_proj"):
            gate, up = tensor.chunk(2, -2)
            parts = {"gate_proj": gate, "up_proj": up}
        elif name.endswith("experts.down_proj"):
            parts = {"down_proj": tensor}
        else:
            value = _stored(name, tensor + 1 if _is_zero_centred(name) else tensor)
            out[home] = value.transpose(1, 2) if name.endswith("conv1d.weight") else value
            continue
        stack = home.rpartition("experts.")[0] + "switch_mlp."
        for part, weight in parts.items():
            out[f"{stack}{part}.weight"], out[f"{stack}{part}.scales"] = pack(*quantise(weight))
    return out


def released(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The released names and layout; experts hold their MXFP4 values, which bfloat16 represents exactly."""
    out: dict[str, Tensor] = {}
    for name, tensor in state.items():
        home = name if name.startswith(("mtp.", "lm_head")) else "model.language_model." + name
        if name.startswith("visual."):
            home = "model." + name
        if ".experts." in name:
            tensor = dequantise(*quantise(tensor))
        out[home] = _stored(name, tensor)
    return out


def write_safetensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """One file: header length, JSON header padded to 8, then the bytes in order."""
    header: dict[str, Any] = {"__metadata__": {"format": "mlx"}}
    at = 0
    ordered = dict(sorted(tensors.items()))
    for name, tensor in ordered.items():
        size = tensor.numel() * tensor.element_size()
        header[name] = {"dtype": DTYPES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for tensor in ordered.values():
            file.write(tensor.detach().reshape(-1).view(torch.uint8).numpy().tobytes())


def export(
    state: Mapping[str, Tensor], shape: Shape, vision: VisionShape, folder: Path, layout: str = "converted"
) -> None:
    """config.json, the processors' settings and model.safetensors; the tokenizer's own module writes its files."""
    folder.mkdir(parents=True, exist_ok=True)
    values = config(shape, vision)
    for file, settings in preprocessors(vision).items():
        write_json(folder / file, settings)
    if layout == "converted":
        values |= {"quantization": QUANTIZATION, "quantization_config": QUANTIZATION}
    write_json(folder / "config.json", values)
    tensors = converted(state) if layout == "converted" else released(state)
    name = "model.safetensors" if layout == "converted" else "model.safetensors-00001-of-00001.safetensors"
    write_safetensors(folder / name, tensors)
