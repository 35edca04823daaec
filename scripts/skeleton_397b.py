"""A skeleton of the 397B at its real geometry: `python scripts/skeleton_397b.py DIR --memory 16GB --tokens 3`.

60 layers of 512 experts in MXFP4, 211 GB by their names and sizes, 0.3 GB on disk: files are sparse, and only the
routers and the first embeddings hold numbers, so that tokens take different experts. Opens it under a budget, prints
the plan, and decodes through the real code with reads of the real size. Holes are read as zeros: the reads cost the
system and the memory what they would, the disk nothing.
"""

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from time import perf_counter

import numpy as np
from make_checkpoint import RELEASED, Preset, config, encode, tensors
from streaming.runs import Timeline

from qwen35_local.backends.memory import expert_layouts, open_stream, plan_memory
from qwen35_local.checkpoint.files import Checkpoint
from qwen35_local.config import Streaming
from qwen35_local.experts.budget import gigabytes
from qwen35_local.model.config import ModelConfig
from qwen35_local.model.qwen35 import Qwen35
from qwen35_local.model.weights import Weights

TOKENS = 64  # embeddings that hold numbers

Entry = tuple[str, str, tuple[int, ...], bytes | None]  # None: a hole


def entries(p: Preset) -> Iterator[Entry]:
    """Every text tensor as an MLX conversion to MXFP4 has it; norms are zero-centred, so zeros are ones."""
    rng = np.random.default_rng(0)
    for name, shape, kind in tensors(p):
        if name.startswith("mtp."):
            continue
        if ".mlp.experts." in name:
            mlp, _, stack = name.rpartition(".experts.")
            for part in ("gate_proj", "up_proj") if stack == "gate_up_proj" else ("down_proj",):
                rows = shape[1] // 2 if stack == "gate_up_proj" else shape[1]
                yield from packed(f"{mlp}.switch_mlp.{part}", (shape[0], rows, shape[2]), None)
        elif kind == "router":
            yield name, "BF16", shape, encode(rng.standard_normal(shape, np.float32) * np.float32(0.03), "BF16")
        elif kind == "embedding":
            yield from packed(name.removesuffix(".weight"), shape, rng.bytes(TOKENS * shape[1] // 2))
        elif len(shape) == 2:
            yield from packed(name.removesuffix(".weight"), shape, None)
        else:
            exact = name.endswith((".A_log", ".linear_attn.norm.weight"))
            yield name, "F32" if exact else "BF16", shape, None


def packed(name: str, shape: tuple[int, ...], codes: bytes | None) -> Iterator[Entry]:
    yield f"{name}.weight", "U32", (*shape[:-1], shape[-1] // 8), codes
    scales = None if codes is None else bytes([127]) * (TOKENS * shape[-1] // 32)
    yield f"{name}.scales", "U8", (*shape[:-1], shape[-1] // 32), scales


def write(path: Path, p: Preset = RELEASED) -> Path:
    """The directory, in as many files as layers and one for the rest."""
    path.mkdir(parents=True, exist_ok=True)
    files: dict[str, list[Entry]] = {}
    for entry in entries(p):
        layer = entry[0].split(".layers.")[1].split(".")[0] if ".layers." in entry[0] else "rest"
        files.setdefault(f"model-{layer}.safetensors", []).append(entry)
    for name, chosen in files.items():
        header, offset = {}, 0
        for tensor, dtype, shape, _ in chosen:
            nbytes = int(np.prod(shape)) * {"U32": 4, "U8": 1, "BF16": 2, "F32": 4}[dtype]
            header[tensor] = {"dtype": dtype, "shape": list(shape), "data_offsets": [offset, offset + nbytes]}
            offset += nbytes
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % 8)
        with (path / name).open("wb") as file:
            file.write(len(text).to_bytes(8, "little") + text)
            file.truncate(8 + len(text) + offset)
            for tensor, _, _, data in chosen:
                if data is not None:
                    file.seek(8 + len(text) + header[tensor]["data_offsets"][0])
                    file.write(data)
    settings = config(p, "BF16")
    settings["quantization"] = {"group_size": 32, "bits": 4, "mode": "mxfp4"}
    (path / "config.json").write_text(json.dumps(settings))
    return path


def rss(what: str) -> int:
    """Bytes, by its name in /proc/self/status."""
    return int(Path("/proc/self/status").read_text().split(f"{what}:")[1].split()[0]) * 1024


def main() -> None:
    parser = argparse.ArgumentParser(description="Open and run a sparse skeleton of the 397B.")
    parser.add_argument("path", type=Path)
    parser.add_argument("--memory", default="16GB")
    parser.add_argument("--context", type=int, default=1024)
    parser.add_argument("--tokens", type=int, default=3, help="0 stops after the plan")
    args = parser.parse_args()
    if not (args.path / "config.json").exists():
        write(args.path)
    before, start = rss("VmRSS"), perf_counter()
    checkpoint = Checkpoint.open(args.path)
    settings = ModelConfig.from_dict(checkpoint.config)
    import mlx.core as mx

    weights = Weights(checkpoint, settings, mx.float32)
    layouts = expert_layouts(args.path, weights, settings.text)
    plan = plan_memory(layouts, weights, settings, args.memory, args.context)
    opened = perf_counter() - start
    print(f"index, layouts and plan: {opened:.2f} s, {(rss('VmRSS') - before) / 1e6:.1f} MB of memory")
    print(f"an expert: {plan.geometry.expert_nbytes:,} bytes in {len(layouts[0].extents(0))} reads; a token uncached: "
          f"{plan.geometry.token_nbytes / 1e9:.3f} GB; all: {plan.geometry.experts_nbytes / 1e9:.2f} GB")  # fmt: skip
    for name, size in plan.items():
        print(f"{gigabytes(size):>12}  {name}")
    if not args.tokens:
        return
    start = perf_counter()
    stream = open_stream(layouts, settings.text, plan, Streaming(direct=False, elastic=False))
    model = Qwen35(weights, settings.text, stream.experts)
    del weights
    print(f"loaded: {perf_counter() - start:.1f} s, {gigabytes(rss('VmRSS'))} of memory", flush=True)
    timeline = Timeline(model)
    for token in range(args.tokens):
        seen = stream.totals()
        logits, seconds = timeline.feed([token * 7 % TOKENS])
        did = stream.totals() - seen
        print(
            f"token {token}: {seconds:.1f} s, {did.misses} of {did.hits + did.misses} experts read, "
            f"{gigabytes(did.nbytes)} at {did.nbytes / max(did.busy, 1e-9) / 1e9:.2f} GB/s, "
            f"logits finite: {bool(np.isfinite(logits).all())}",
            flush=True,
        )
    print(f"peak {gigabytes(rss('VmHWM'))} of {gigabytes(plan.budget)}")
    stream.close()
    sys.exit(rss("VmHWM") > plan.budget * 1.03)


if __name__ == "__main__":
    main()
