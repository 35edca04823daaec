"""Random checkpoints for streaming: packed experts written straight to disk, a router with favourites."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
from make_checkpoint import PRESETS as PLAIN
from make_checkpoint import Preset, config, draw, encode, tensors

from qwen35_local.experts.store import INDEX, pack

# Both are 1.7 GB of MXFP4 experts. `decode`: experts of 1.7 MB, arithmetic and reads weigh alike. `long`: thin layers,
# so that thousands of tokens are affordable on a CPU, over 8,192 experts of 0.2 MB.
PRESETS = {
    "decode": Preset(1024, 8, 2048, 8, 2, 128, 4, 8, 128, 128, 8, 1024, 8192),
    "long": Preset(256, 8, 2048, 4, 2, 64, 2, 4, 64, 1024, 4, 512, 8192),
    # For long contexts: the mid-size model, and one of the same sizes with attention in every layer.
    "hybrid": PLAIN["mid"],
    "attention": replace(PLAIN["mid"], interval=1),
    "quick": Preset(256, 4, 2048, 4, 2, 64, 2, 4, 64, 256, 4, 256, 8192),
}


def make(path: Path, name: str, seed: int = 0) -> Path:
    """The checkpoint (MLX layout) and, in `experts/`, its packed store; kept from run to run."""
    if (path / "experts" / INDEX).exists():
        return path
    p = PRESETS[name]
    path.mkdir(parents=True, exist_ok=True)
    specs = [spec for spec in tensors(p) if not spec[0].startswith("mtp.")]
    for layer in range(-1, p.layers):
        stem = f"model.language_model.layers.{layer}."
        mine = [s for s in specs if (s[0].startswith(stem) if layer >= 0 else ".layers." not in s[0])]
        write_file(path / f"model-{layer + 1:03d}.safetensors", p, mine, np.random.default_rng([seed, layer + 1]))
    settings = config(p, "F32")
    settings["quantization"] = {"group_size": 32, "bits": 4, "mode": "mxfp4"}
    (path / "config.json").write_text(json.dumps(settings))
    from tiny import opened

    weights, parsed = opened(path)
    for _ in pack(weights.expert_layouts(parsed.text), path / "experts"):
        pass
    return path


def write_file(path: Path, p: Preset, specs: list[tuple[str, tuple[int, ...], str]], rng: np.random.Generator) -> None:
    """One shard; experts are drawn packed and never held as floats."""
    entries: list[tuple[str, str, tuple[int, ...], str]] = []
    for name, shape, kind in specs:
        if ".mlp.experts." not in name:
            entries.append((name, "F32", shape, kind))
            continue
        mlp, _, stack = name.rpartition(".experts.")
        for part in ("gate_proj", "up_proj") if stack == "gate_up_proj" else ("down_proj",):
            E, rows, inputs = shape[0], shape[1] // (2 if stack == "gate_up_proj" else 1), shape[2]
            entries.append((f"{mlp}.switch_mlp.{part}.weight", "U32", (E, rows, inputs // 8), "packed"))
            entries.append((f"{mlp}.switch_mlp.{part}.scales", "U8", (E, rows, inputs // 32), "scales"))
    header, offset = {}, 0
    for name, dtype, shape, _ in entries:
        nbytes = int(np.prod(shape)) * (1 if dtype == "U8" else 4)
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [offset, offset + nbytes]}
        offset += nbytes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for _, _, shape, kind in entries:
            if kind == "packed":
                for _ in range(shape[0]):
                    file.write(rng.bytes(4 * shape[1] * shape[2]))
            elif kind == "scales":  # 2^-6 or 2^-5 of an unpacked spread of 2.7: about 1.2 / sqrt(inputs)
                file.write(rng.integers(120, 122, shape, np.uint8).tobytes())
            elif kind == "router":  # rows of unequal length make favourites, as trained routers have them
                values = draw(rng, shape, kind) * rng.lognormal(0, 0.7, (shape[0], 1)).astype(np.float32)
                file.write(encode(values.astype(np.float32), "F32"))
            else:
                file.write(encode(draw(rng, shape, kind), "F32"))
