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

QUANTIZATION = {"group_size": 32, "bits": 4, "mode": "mxfp4"}
# Small and sensitive, so kept in float32; everything else that is not an expert is bfloat16.
PRECISE = (
    *("A_log", "dt_bias", "norm.weight", "layernorm.weight", "norm_embedding.weight", "norm_hidden.weight"),
    *("conv1d.weight", "mlp.gate.weight", "shared_expert_gate.weight", "in_proj_a.weight", "in_proj_b.weight"),
)
DTYPES = {torch.float32: "F32", torch.bfloat16: "BF16", torch.uint32: "U32", torch.uint8: "U8"}


def config(shape: Shape) -> dict[str, Any]:
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
        "tie_word_embeddings": False,
        "image_token_id": ids["<|image_pad|>"],
        "video_token_id": ids["<|video_pad|>"],
        "vision_start_token_id": ids["<|vision_start|>"],
        "vision_end_token_id": ids["<|vision_end|>"],
    }


def _stored(name: str, tensor: Tensor) -> Tensor:
    return tensor.float() if name.endswith(PRECISE) else tensor.bfloat16()


def _is_zero_centred(name: str) -> bool:
    return name.endswith(("norm.weight", "layernorm.weight", "norm_embedding.weight", "norm_hidden.weight")) and (
        "linear_attn.norm" not in name
    )


def converted(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """MLX's names: norms as 1 + w, convolutions [C, 4, 1], routed experts split and packed as MXFP4."""
    out: dict[str, Tensor] = {}
    for name, tensor in state.items():
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


def export(state: Mapping[str, Tensor], shape: Shape, folder: Path, layout: str = "converted") -> None:
    """config.json and model.safetensors; the tokenizer's files are written by its own module."""
    folder.mkdir(parents=True, exist_ok=True)
    values = config(shape)
    if layout == "converted":
        values |= {"quantization": QUANTIZATION, "quantization_config": QUANTIZATION}
    write_json(folder / "config.json", values)
    tensors = converted(state) if layout == "converted" else released(state)
    name = "model.safetensors" if layout == "converted" else "model.safetensors-00001-of-00001.safetensors"
    write_safetensors(folder / name, tensors)
