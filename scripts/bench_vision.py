"""Seeing: our preprocessing and tower against transformers (PIL processor, torch on the CPU), interleaved in one run.

    python scripts/bench_vision.py [--quick] [--json FILE]        (needs the [oracle] extra)

Preprocessing is from a file's bytes to patches, decoding included; both sides' patches must be equal to the bit. The
tower has the released widths and random weights; on a CPU a few of its 27 equal blocks are enough to compare. Memory
is what a fresh process's peak grows by with a 16-megapixel picture. A ratio above 1 means that ours is faster, or
takes less; the second one is of processor time, which other work on the machine disturbs less.
"""

import argparse
import io
import json
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from bench_engine import peak_rss, spread
from make_checkpoint import PRESETS, Preset, config, draw, encode, tower, write_safetensors
from PIL import Image

from qwen35_local.media import images
from qwen35_local.media.rules import IMAGES

# The released tower but for its depth; it ends in the width of the tiny language model.
WIDE = replace(
    PRESETS["tiny"], vision_hidden=1152, vision_intermediate=4304, vision_heads=16, vision_side=48, vision_depth=4
)
PICTURES = {
    "640x480 JPEG": ((640, 480), "JPEG"),
    "1920x1080 JPEG": ((1920, 1080), "JPEG"),
    "800x600 PNG, transparent": ((800, 600), "PNG"),
    "4000x4000 JPEG": ((4000, 4000), "JPEG"),
}
GRIDS = {"256x256": (1, 16, 16), "512x512": (1, 32, 32), "clip, 4 pairs of 256x256": (4, 16, 16)}
LARGE = "4000x4000 JPEG"


def picture(name: str) -> bytes:
    """Soft colours with some noise, so that a JPEG is neither empty nor incompressible."""
    (width, height), format = PICTURES[name]
    rng = np.random.default_rng([width, height])
    coarse = Image.fromarray(rng.integers(0, 256, (12, 12, 4 if format == "PNG" else 3), dtype=np.uint8))
    pixels = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC)).astype(np.int16)
    pixels = np.clip(pixels + rng.integers(-9, 10, pixels.shape), 0, 255).astype(np.uint8)
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, format)
    return out.getvalue()


def ours(data: bytes) -> np.ndarray:
    return images.look(data, IMAGES).patches()


def processor() -> Callable[[bytes], np.ndarray]:
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import (  # pyright: ignore[reportMissingImports]
        Qwen2VLImageProcessorPil,
    )

    size = {"shortest_edge": IMAGES.min_pixels, "longest_edge": IMAGES.max_pixels}
    half = [0.5] * 3
    theirs = Qwen2VLImageProcessorPil(size=size, patch_size=16, image_mean=half, image_std=half)

    def run(data: bytes) -> np.ndarray:
        return theirs(images=[Image.open(io.BytesIO(data))], return_tensors="np")["pixel_values"]

    return run


def towers(p: Preset, directory: Path) -> dict[str, Callable[[np.ndarray, tuple[int, int, int]], np.ndarray]]:
    """Both towers on the same random weights."""
    import mlx.core as mx
    import torch  # pyright: ignore[reportMissingImports]
    from transformers.models.qwen3_5_moe.configuration_qwen3_5_moe import (  # pyright: ignore[reportMissingImports]
        Qwen3_5MoeVisionConfig,
    )
    from transformers.models.qwen3_5_moe.modeling_qwen3_5_moe import (  # pyright: ignore[reportMissingImports]
        Qwen3_5MoeVisionModel,
    )

    from qwen35_local.checkpoint.files import Checkpoint
    from qwen35_local.model.config import ModelConfig
    from qwen35_local.model.vision import VisionTower
    from qwen35_local.model.weights import Weights

    whole = config(p, "F32", vision=True)
    values = {name: draw(np.random.default_rng([0, i]), shape, kind) for i, (name, shape, kind) in enumerate(tower(p))}
    entries = [(name, "F32", array.shape, encode(array, "F32")) for name, array in values.items()]
    write_safetensors(directory / "model.safetensors", entries)
    (directory / "config.json").write_text(json.dumps(whole))
    checkpoint = Checkpoint.open(directory)
    read = ModelConfig.from_dict(checkpoint.config)
    assert read.vision is not None
    mine = VisionTower(Weights(checkpoint, read, mx.float32), read.vision)

    settings = {name: value for name, value in whole["vision_config"].items() if name != "model_type"}
    theirs = Qwen3_5MoeVisionModel._from_config(Qwen3_5MoeVisionConfig(**settings), attn_implementation="sdpa").eval()
    state = {name.removeprefix("model.visual."): torch.tensor(array) for name, array in values.items()}
    theirs.load_state_dict(state, strict=True)

    def run_ours(patches: np.ndarray, grid: tuple[int, int, int]) -> np.ndarray:
        return np.array(mine(mx.array(patches), grid))

    def run_theirs(patches: np.ndarray, grid: tuple[int, int, int]) -> np.ndarray:
        with torch.no_grad():
            return theirs(torch.tensor(patches), grid_thw=torch.tensor([grid])).pooler_output.numpy()

    return {"ours": run_ours, "transformers": run_theirs}


def compare(runs: dict[str, Callable[[], Any]], repeats: int) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """Milliseconds of each, in turns, after one round that does not count; and those of the processor, all threads."""
    for run in runs.values():
        run()
    times, work = ({name: [] for name in runs} for _ in range(2))
    for repeat in range(repeats):
        for name in list(runs) if repeat % 2 == 0 else reversed(runs):
            started, used = time.perf_counter(), time.process_time()
            runs[name]()
            times[name].append(1000 * (time.perf_counter() - started))
            work[name].append(1000 * (time.process_time() - used))
    return times, work


def report(
    what: str, times: dict[str, list[float]], work: dict[str, list[float]] | None = None, unit: str = "ms"
) -> dict[str, Any]:
    for name, values in times.items():
        print(f"{what:38} {name:12} {unit:3} {spread(values)}")
    found: dict[str, Any] = {**times}
    for name, sides in (("ratio", times), ("processor", work)):
        if sides is not None:
            pairs = [theirs / mine for mine, theirs in zip(sides["ours"], sides["transformers"], strict=True)]
            found[name] = statistics.median(pairs)
            print(f"{what:38} {name:12}     {spread(pairs)}", flush=True)
    return found


def memory_main(name: str, path: Path) -> None:
    run = ours if name == "ours" else processor()
    run(picture("640x480 JPEG"))
    before = peak_rss()
    patches = run(path.read_bytes())
    print(json.dumps({"grew": peak_rss() - before, "patches": patches.nbytes / 2**20}))


def memory(name: str, path: Path) -> dict[str, float]:
    """MiB by which a fresh process's peak grows, and those of them that the patches are."""
    command = [sys.executable, __file__, "--memory", name, str(path)]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description="Preprocessing and tower against transformers on the CPU.")
    parser.add_argument("--quick", action="store_true", help="fewer repeats, no clip, two blocks")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--memory", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.memory:
        return memory_main(args.memory[0], Path(args.memory[1]))
    repeats = 3 if args.quick else 7
    found: dict[str, Any] = {}
    print(f"{platform.machine()}, transformers {version('transformers')}, torch {version('torch')}, {repeats} repeats")
    theirs = processor()
    for name in PICTURES:
        data = picture(name)
        assert np.array_equal(ours(data), theirs(data)), f"the patches of {name} differ"
        sides = {"ours": partial(ours, data), "transformers": partial(theirs, data)}
        found[name] = report(f"preprocess {name}", *compare(sides, repeats if name != LARGE else 3))

    p = replace(WIDE, vision_depth=2) if args.quick else WIDE
    with tempfile.TemporaryDirectory() as directory:
        both = towers(p, Path(directory))
        for name, grid in list(GRIDS.items())[: 2 if args.quick else None]:
            patches = np.random.default_rng(7).standard_normal((int(np.prod(grid)), 1536)).astype(np.float32)
            mine, other = (run(patches, grid) for run in both.values())
            error = np.linalg.norm(mine - other) / np.linalg.norm(other)
            runs = {side: partial(run, patches, grid) for side, run in both.items()}
            found[name] = report(f"tower, {p.vision_depth} blocks, {name}", *compare(runs, repeats)) | {"error": error}
            print(f"{'':38} relative difference {error:.1e}")

        large = Path(directory) / "large.jpg"
        large.write_bytes(picture(LARGE))
        grown = {
            name: [memory(name, large)["grew"] for _ in range(1 if args.quick else 2)]
            for name in ("ours", "transformers")
        }
        found["memory"] = report(f"memory {LARGE}", grown, unit="MiB")
    if args.json:
        args.json.write_text(json.dumps(found, indent=1, default=float))
    return None


if __name__ == "__main__":
    main()
