"""Pack a random checkpoint's experts as MLX conversions do: `python scripts/pack_checkpoint.py FROM TO --mode mxfp4`.

Everything else is copied as it is. `--layout` chooses how the experts are named and stacked, because the port streams
them all: `switch_mlp` (mlx-lm), `fused` (released names, packed) and `single` (one by one).
"""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import mlx.core as mx
import numpy as np
from make_checkpoint import write_safetensors

from qwen35_local.checkpoint.files import Checkpoint, TensorInfo

Layout = Literal["switch_mlp", "fused", "single"]
Entry = tuple[str, str, tuple[int, ...], bytes]
MODES = {
    "none": {},
    "mxfp4": {"bits": 4, "group_size": 32, "mode": "mxfp4"},
    "nvfp4": {"bits": 4, "group_size": 16, "mode": "nvfp4"},
    "mxfp8": {"bits": 8, "group_size": 32, "mode": "mxfp8"},
    "affine4": {"bits": 4, "group_size": 64, "mode": "affine"},
    "affine8": {"bits": 8, "group_size": 32, "mode": "affine"},
}
DTYPES = {mx.uint32: "U32", mx.uint8: "U8", mx.float32: "F32", mx.bfloat16: "BF16"}


def pack(source: Path, target: Path, mode: str = "mxfp4", layout: Layout = "switch_mlp", shards: int = 2) -> Path:
    """Write the packed copy of a released-layout checkpoint; MTP experts stay as they are."""
    checkpoint = Checkpoint.open(source)
    target.mkdir(parents=True, exist_ok=True)
    entries: list[Entry] = []
    for name, tensor in checkpoint.tensors.items():
        if ".mlp.experts." not in name or name.startswith("mtp."):
            with tensor.file.open("rb") as file:
                file.seek(tensor.offset)
                entries.append((name, tensor.dtype, tensor.shape, file.read(tensor.nbytes)))
        else:
            entries += experts(name, values(tensor), MODES[mode], layout)
    size = -(-len(entries) // shards)
    weight_map = {}
    for shard in range(shards):
        file = f"model-{shard + 1:05d}-of-{shards:05d}.safetensors"
        chosen = entries[shard * size : (shard + 1) * size]
        write_safetensors(target / file, chosen)
        weight_map |= {name: file for name, *_ in chosen}
    index = {"metadata": {}, "weight_map": weight_map}
    (target / "model.safetensors.index.json").write_text(json.dumps(index))
    config = dict(checkpoint.config)
    if MODES[mode]:
        config["quantization"] = config["quantization_config"] = MODES[mode]
    (target / "config.json").write_text(json.dumps(config, indent=1))
    return target


def values(tensor: TensorInfo) -> mx.array:
    return mx.load(str(tensor.file))[tensor.name]  # pyright: ignore[reportIndexIssue, reportReturnType, reportArgumentType, reportCallIssue]


def experts(name: str, stack: mx.array, mode: dict, layout: Layout) -> Iterator[Entry]:
    """The entries of one released stack, `….mlp.experts.gate_up_proj` [E, 2I, H] or `….down_proj` [E, H, I]."""
    mlp, _, kind = name.rpartition(".experts.")
    if layout == "fused":
        yield from module(name, stack, mode, bare=not mode)
        return
    halves = dict(zip(("gate_proj", "up_proj"), mx.split(stack, 2, axis=1), strict=True))
    for part, weight in (halves if kind == "gate_up_proj" else {"down_proj": stack}).items():
        if layout == "switch_mlp":
            yield from module(f"{mlp}.switch_mlp.{part}", weight, mode)
        else:
            for e in range(weight.shape[0]):
                yield from module(f"{mlp}.experts.{e}.{part}", weight[e], mode)


def module(name: str, weight: mx.array, mode: dict, bare: bool = False) -> Iterator[Entry]:
    if not mode:
        yield entry(name if bare else f"{name}.weight", weight)
        return
    packed = mx.quantize(weight, **mode)
    for suffix, array in zip(("weight", "scales", "biases"), packed, strict=False):
        yield entry(f"{name}.{suffix}", array)


def entry(name: str, array: mx.array) -> Entry:
    flat = mx.contiguous(array).reshape(-1)
    return name, DTYPES[array.dtype], tuple(array.shape), np.array(flat.view(mx.uint8)).tobytes()


def main() -> None:
    parser = argparse.ArgumentParser(description="Pack a checkpoint's experts as MLX conversions do.")
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    parser.add_argument("--mode", choices=MODES, default="mxfp4")
    parser.add_argument("--layout", choices=("switch_mlp", "fused", "single"), default="switch_mlp")
    args = parser.parse_args()
    pack(args.source, args.target, args.mode, args.layout)


if __name__ == "__main__":
    main()
