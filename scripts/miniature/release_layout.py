"""The shipped miniature in the released layout (bfloat16, released names), for transformers and converters.

python -m scripts.miniature.release_layout DIR
"""

import argparse
import json
import shutil
from pathlib import Path

import mlx.core as mx

from .items import ROOT

SHIPPED = ROOT / "qwen35_local" / "miniature"
ZERO_CENTRED = ("layernorm.weight", "model.norm.weight", "mtp.norm.weight", "q_norm.weight", "k_norm.weight",
                "norm_embedding.weight", "norm_hidden.weight")  # fmt: skip


PLACES = (
    ("language_model.model.", "model.language_model."),
    ("language_model.lm_head", "lm_head"),
    ("vision_tower.", "model.visual."),
)


def released_name(name: str) -> str:
    for ours, theirs in PLACES:
        name = name.replace(ours, theirs)
    return name


def released(tensors: dict[str, mx.array]) -> dict[str, mx.array]:
    """Experts dequantised (exact in bfloat16) and fused, norms zero-centred again, convolutions channels first."""
    out: dict[str, mx.array] = {}
    for name, tensor in tensors.items():
        if ".switch_mlp." not in name:
            if name.endswith(ZERO_CENTRED):
                tensor = tensor - 1
            if name.endswith("conv1d.weight"):
                tensor = tensor.transpose(0, 2, 1)
            if name.endswith("patch_embed.proj.weight"):
                tensor = tensor.transpose(0, 4, 1, 2, 3)
            out[released_name(name)] = tensor
        elif name.endswith("gate_proj.weight"):
            stack = name.removesuffix("gate_proj.weight")
            gate, up, down = (
                mx.dequantize(
                    tensors[f"{stack}{part}_proj.weight"],
                    tensors[f"{stack}{part}_proj.scales"],
                    group_size=32,
                    bits=4,
                    mode="mxfp4",
                )
                for part in ("gate", "up", "down")
            )
            experts = released_name(stack.replace("switch_mlp.", "experts."))
            out[f"{experts}gate_up_proj"] = mx.concatenate([gate, up], axis=1).astype(mx.bfloat16)
            out[f"{experts}down_proj"] = down.astype(mx.bfloat16)
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("target", type=Path)
    target: Path = parser.parse_args().target
    target.mkdir(parents=True, exist_ok=True)
    tensors = mx.load(str(SHIPPED / "model.safetensors"))
    assert isinstance(tensors, dict)
    name = "model.safetensors-00001-of-00001.safetensors"  # the released naming
    weights = released(tensors)
    mx.save_safetensors(str(target / name), weights, metadata={"format": "pt"})
    index = {"metadata": {}, "weight_map": dict.fromkeys(sorted(weights), name)}
    (target / "model.safetensors.index.json").write_text(json.dumps(index, indent=1) + "\n")
    config = json.loads((SHIPPED / "config.json").read_text())
    del config["quantization"], config["quantization_config"]
    (target / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    for file in (*SHIPPED.glob("tokenizer*.json"), *SHIPPED.glob("*preprocessor_config.json")):
        shutil.copy(file, target / file.name)
    shutil.copy(SHIPPED / "generation_config.json", target / "generation_config.json")


if __name__ == "__main__":
    main()
