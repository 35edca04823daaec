"""Write a random checkpoint in the released layout: `python scripts/make_checkpoint.py DIR --preset tiny|mid`.

A random model proves only what its numbers can move, so every norm, bias and decay is drawn away from its default, and
the proportions are the released ones: three DeltaNet layers to one of attention, grouped heads, a shared expert.
Shards have the released, odd names; A_log and the gated norm are float32 whatever the rest is.
"""

import argparse
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

SPECIAL_TOKENS = 33
EXACT = (".A_log", ".linear_attn.norm.weight")  # float32 whatever the rest is


@dataclass(frozen=True)
class Preset:
    hidden: int
    layers: int
    vocab: int
    heads: int
    kv_heads: int
    head_dim: int
    Hk: int
    Hv: int
    D: int
    experts: int
    top_k: int
    intermediate: int
    context: int = 4096
    interval: int = 4  # every so many layers one is of attention; 1 is all
    # The tower; heads of 72 as released. No `vision`, no tower.
    vision_depth: int = 3
    vision_hidden: int = 144
    vision_intermediate: int = 200
    vision_heads: int = 2
    vision_side: int = 7  # of the learned grid of positions


PRESETS = {
    # 1.6 M parameters: seconds in any framework.
    "tiny": Preset(128, 8, 704, 8, 2, 64, 2, 8, 32, 16, 4, 64, 512),
    # 0.5 G parameters, 0.1 G of them active: large enough that arithmetic dominates.
    "mid": Preset(1024, 8, 8192, 16, 2, 128, 4, 16, 128, 64, 8, 256, 32768),
}


# The 397B as released, for skeletons: its data would be 807 GB.
RELEASED = Preset(
    4096, 60, 248320, 32, 2, 256, 16, 64, 128, 512, 10, 1024, 262144,
    vision_depth=27, vision_hidden=1152, vision_intermediate=4304, vision_heads=16, vision_side=48,
)  # fmt: skip


def config(p: Preset, dtype: str, yarn: float = 1.0, vision: bool = False, first_special: int | None = None) -> dict:
    """config.json in the released form. `first_special` is the id of `<|endoftext|>`, by default as in the release."""
    rotary = p.head_dim // 4 // 2
    rope: dict = {
        "rope_type": "default",
        "rope_theta": 10_000_000,
        "partial_rotary_factor": 0.25,
        "mrope_section": [rotary - 2 * (rotary // 3), rotary // 3, rotary // 3],
        "mrope_interleaved": True,
    }
    if yarn != 1.0:
        rope |= {"rope_type": "yarn", "factor": yarn, "original_max_position_embeddings": p.context}
    text = {
        "model_type": "qwen3_5_moe_text",
        "hidden_size": p.hidden,
        "num_hidden_layers": p.layers,
        "vocab_size": p.vocab,
        "num_attention_heads": p.heads,
        "num_key_value_heads": p.kv_heads,
        "head_dim": p.head_dim,
        "attn_output_gate": True,
        "attention_bias": False,
        "rope_parameters": rope,
        "full_attention_interval": p.interval,
        "layer_types": ["linear_attention" if (i + 1) % p.interval else "full_attention" for i in range(p.layers)],
        "linear_num_key_heads": p.Hk,
        "linear_num_value_heads": p.Hv,
        "linear_key_head_dim": p.D,
        "linear_value_head_dim": p.D,
        "linear_conv_kernel_dim": 4,
        "mamba_ssm_dtype": "float32",
        "num_experts": p.experts,
        "num_experts_per_tok": p.top_k,
        "moe_intermediate_size": p.intermediate,
        "shared_expert_intermediate_size": p.intermediate,
        "mlp_only_layers": [],
        "hidden_act": "silu",
        "rms_norm_eps": 1e-6,
        "tie_word_embeddings": False,
        "max_position_embeddings": int(p.context * yarn),
        "mtp_num_hidden_layers": 1,
        "mtp_use_dedicated_embeddings": False,
        "eos_token_id": p.vocab - SPECIAL_TOKENS,
        "dtype": {"F32": "float32", "BF16": "bfloat16"}[dtype],
    }
    whole = {
        "architectures": ["Qwen3_5MoeForConditionalGeneration"],
        "model_type": "qwen3_5_moe",
        "text_config": text,
        "tie_word_embeddings": False,
    }
    return whole | vision_config(p, first_special) if vision else whole


def vision_config(p: Preset, first_special: int | None) -> dict:
    first = p.vocab - SPECIAL_TOKENS if first_special is None else first_special
    return {
        "vision_config": {
            "model_type": "qwen3_5_moe",  # sic: as released
            "depth": p.vision_depth,
            "hidden_size": p.vision_hidden,
            "intermediate_size": p.vision_intermediate,
            "num_heads": p.vision_heads,
            "hidden_act": "gelu_pytorch_tanh",
            "in_channels": 3,
            "patch_size": 16,
            "temporal_patch_size": 2,
            "spatial_merge_size": 2,
            "out_hidden_size": p.hidden,
            "num_position_embeddings": p.vision_side**2,
            "deepstack_visual_indexes": [],
        },
        "vision_start_token_id": first + 9,
        "vision_end_token_id": first + 10,
        "image_token_id": first + 12,
        "video_token_id": first + 13,
    }


def tensors(p: Preset) -> Iterator[tuple[str, tuple[int, ...], str]]:
    """(name, shape, kind) of every text and MTP tensor, in the released order."""
    text = "model.language_model"
    yield f"{text}.embed_tokens.weight", (p.vocab, p.hidden), "embedding"
    for i in range(p.layers):
        layer = f"{text}.layers.{i}"
        yield from delta_net(p, f"{layer}.linear_attn") if (i + 1) % p.interval else attention(p, f"{layer}.self_attn")
        yield f"{layer}.input_layernorm.weight", (p.hidden,), "zero-centred"
        yield f"{layer}.post_attention_layernorm.weight", (p.hidden,), "zero-centred"
        yield from moe(p, f"{layer}.mlp", fused=True)
    yield f"{text}.norm.weight", (p.hidden,), "zero-centred"
    yield "lm_head.weight", (p.vocab, p.hidden), "matrix"
    yield "mtp.fc.weight", (p.hidden, 2 * p.hidden), "matrix"
    for norm in ("pre_fc_norm_embedding", "pre_fc_norm_hidden", "norm"):
        yield f"mtp.{norm}.weight", (p.hidden,), "zero-centred"
    yield from attention(p, "mtp.layers.0.self_attn")
    yield "mtp.layers.0.input_layernorm.weight", (p.hidden,), "zero-centred"
    yield "mtp.layers.0.post_attention_layernorm.weight", (p.hidden,), "zero-centred"
    yield from moe(p, "mtp.layers.0.mlp", fused=False)


def tower(p: Preset) -> Iterator[tuple[str, tuple[int, ...], str]]:
    """(name, shape, kind) of every tensor of the vision tower."""
    H, I = p.vision_hidden, p.vision_intermediate  # noqa: E741

    def layer(name: str, out: int, in_: int) -> Iterator[tuple[str, tuple[int, ...], str]]:
        yield f"{name}.weight", (out, in_), "matrix"
        yield f"{name}.bias", (out,), "bias"

    def norm(name: str) -> Iterator[tuple[str, tuple[int, ...], str]]:
        yield f"{name}.weight", (H,), "ones-centred"
        yield f"{name}.bias", (H,), "bias"

    yield "model.visual.patch_embed.proj.weight", (H, 3, 2, 16, 16), "patches"
    yield "model.visual.patch_embed.proj.bias", (H,), "bias"
    yield "model.visual.pos_embed.weight", (p.vision_side**2, H), "embedding"
    for i in range(p.vision_depth):
        block = f"model.visual.blocks.{i}"
        yield from norm(f"{block}.norm1")
        yield from norm(f"{block}.norm2")
        yield from layer(f"{block}.attn.qkv", 3 * H, H)
        yield from layer(f"{block}.attn.proj", H, H)
        yield from layer(f"{block}.mlp.linear_fc1", I, H)
        yield from layer(f"{block}.mlp.linear_fc2", H, I)
    yield from norm("model.visual.merger.norm")
    yield from layer("model.visual.merger.linear_fc1", 4 * H, 4 * H)
    yield from layer("model.visual.merger.linear_fc2", p.hidden, 4 * H)


def attention(p: Preset, name: str) -> Iterator[tuple[str, tuple[int, ...], str]]:
    yield f"{name}.q_proj.weight", (2 * p.heads * p.head_dim, p.hidden), "matrix"
    yield f"{name}.k_proj.weight", (p.kv_heads * p.head_dim, p.hidden), "matrix"
    yield f"{name}.v_proj.weight", (p.kv_heads * p.head_dim, p.hidden), "matrix"
    yield f"{name}.o_proj.weight", (p.hidden, p.heads * p.head_dim), "matrix"
    yield f"{name}.q_norm.weight", (p.head_dim,), "head-norm"
    yield f"{name}.k_norm.weight", (p.head_dim,), "head-norm"


def delta_net(p: Preset, name: str) -> Iterator[tuple[str, tuple[int, ...], str]]:
    channels = (2 * p.Hk + p.Hv) * p.D
    yield f"{name}.in_proj_qkv.weight", (channels, p.hidden), "matrix"
    yield f"{name}.in_proj_z.weight", (p.Hv * p.D, p.hidden), "matrix"
    yield f"{name}.in_proj_b.weight", (p.Hv, p.hidden), "matrix"
    yield f"{name}.in_proj_a.weight", (p.Hv, p.hidden), "matrix"
    yield f"{name}.conv1d.weight", (channels, 1, 4), "conv"
    yield f"{name}.A_log", (p.Hv,), "A_log"
    yield f"{name}.dt_bias", (p.Hv,), "dt_bias"
    yield f"{name}.norm.weight", (p.D,), "ones-centred"
    yield f"{name}.out_proj.weight", (p.hidden, p.Hv * p.D), "matrix"


def moe(p: Preset, name: str, fused: bool) -> Iterator[tuple[str, tuple[int, ...], str]]:
    """Trunk experts are fused in the release, those of the MTP head come one by one."""
    yield f"{name}.gate.weight", (p.experts, p.hidden), "router"
    if fused:
        yield f"{name}.experts.gate_up_proj", (p.experts, 2 * p.intermediate, p.hidden), "matrix"
        yield f"{name}.experts.down_proj", (p.experts, p.hidden, p.intermediate), "matrix"
    else:
        for e in range(p.experts):
            yield from swiglu(p, f"{name}.experts.{e}")
    yield from swiglu(p, f"{name}.shared_expert")
    yield f"{name}.shared_expert_gate.weight", (1, p.hidden), "matrix"


def swiglu(p: Preset, name: str) -> Iterator[tuple[str, tuple[int, ...], str]]:
    yield f"{name}.gate_proj.weight", (p.intermediate, p.hidden), "matrix"
    yield f"{name}.up_proj.weight", (p.intermediate, p.hidden), "matrix"
    yield f"{name}.down_proj.weight", (p.hidden, p.intermediate), "matrix"


def draw(rng: np.random.Generator, shape: tuple[int, ...], kind: str) -> np.ndarray:
    """float32 values of one tensor; all kinds but plain matrices are centred away from what a loader might assume."""
    match kind:
        case "zero-centred":
            return rng.normal(0.1, 0.3, shape).astype(np.float32)
        case "head-norm":  # large, so that attention is far from uniform
            return rng.normal(0.8, 0.9, shape).astype(np.float32)
        case "ones-centred":
            return rng.normal(1.1, 0.3, shape).astype(np.float32)
        case "A_log":
            return np.log(rng.uniform(1, 8, shape)).astype(np.float32)
        case "dt_bias":  # inverse softplus of time steps between 0.001 and 0.1
            dt = np.exp(rng.uniform(math.log(0.001), math.log(0.1), shape))
            return (dt + np.log(-np.expm1(-dt))).astype(np.float32)
        case "conv":
            return rng.normal(0.1, 0.5, shape).astype(np.float32)
        case "bias":
            return rng.normal(0.1, 0.3, shape).astype(np.float32)
        case "patches":
            return rng.standard_normal(shape, np.float32) * np.float32(1.2 / math.sqrt(math.prod(shape[1:])))
        case "embedding":
            return rng.standard_normal(shape, np.float32)
        case "router":
            return rng.standard_normal(shape, np.float32) * np.float32(2 / math.sqrt(shape[-1]))
        case _:
            return rng.standard_normal(shape, np.float32) * np.float32(1.2 / math.sqrt(shape[-1]))


def encode(values: np.ndarray, dtype: str) -> bytes:
    """Little-endian bytes; bfloat16 by rounding to nearest even."""
    if dtype == "F32":
        return values.tobytes()
    bits = values.view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16).tobytes()


def write_safetensors(path: Path, entries: list[tuple[str, str, tuple[int, ...], bytes]]) -> None:
    """One file from (name, dtype, shape, data)."""
    header, offset = {}, 0
    for name, dtype, shape, data in entries:
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [offset, offset + len(data)]}
        offset += len(data)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for *_, data in entries:
            file.write(data)


def write(
    path: Path,
    preset: str = "tiny",
    dtype: str = "F32",
    seed: int = 0,
    shards: int = 3,
    yarn: float = 1.0,
    vision: bool = False,
    first_special: int | None = None,
) -> Path:
    """The whole directory but for the tokenizer; the same arguments give the same bytes, with `vision` or without."""
    p = PRESETS[preset]
    path.mkdir(parents=True, exist_ok=True)
    specs = [*tensors(p), *(tower(p) if vision else ())]
    weight_map, total = {}, 0
    for shard in range(shards):
        file = f"model.safetensors-{shard + 1:05d}-of-{shards:05d}.safetensors"
        entries = []
        for index in range(shard * len(specs) // shards, (shard + 1) * len(specs) // shards):
            name, shape, kind = specs[index]
            stored = "F32" if name.endswith(EXACT) else dtype
            data = encode(draw(np.random.default_rng([seed, index]), shape, kind), stored)
            entries.append((name, stored, shape, data))
            weight_map[name], total = file, total + len(data)
        write_safetensors(path / file, entries)
    index_json = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (path / "model.safetensors.index.json").write_text(json.dumps(index_json, indent=1))
    (path / "config.json").write_text(json.dumps(config(p, dtype, yarn, vision, first_special), indent=1))
    if vision:
        write_processors(path)
    return path


def write_skeleton(path: Path, p: Preset, shards: int) -> Path:
    """A bfloat16 release of which only headers are real: holes for the data, shards of about the same length."""
    path.mkdir(parents=True, exist_ok=True)
    specs = [(name, shape, "F32" if name.endswith(EXACT) else "BF16") for name, shape, _ in (*tensors(p), *tower(p))]
    sizes = [math.prod(shape) * (4 if dtype == "F32" else 2) for _, shape, dtype in specs]
    total, start, weight_map = sum(sizes), 0, {}
    chosen: list[list[tuple[str, tuple[int, ...], str, int]]] = [[] for _ in range(shards)]
    for spec, nbytes in zip(specs, sizes, strict=True):
        chosen[start * shards // total].append((*spec, nbytes))
        start += nbytes
    for shard in range(shards):
        file = f"model.safetensors-{shard + 1:05d}-of-{shards:05d}.safetensors"
        header, at = {}, 0
        for name, shape, dtype, nbytes in chosen[shard]:
            header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + nbytes]}
            weight_map[name], at = file, at + nbytes
        text = json.dumps(header).encode()
        with (path / file).open("wb") as out:
            out.write(len(text).to_bytes(8, "little") + text)
            out.truncate(8 + len(text) + at)
    (path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    (path / "config.json").write_text(json.dumps(config(p, "BF16", vision=True), indent=1))
    return path


def write_processors(path: Path) -> None:
    """How the released model is shown pictures and clips, for smaller ones: at most 512 x 512 pixels."""
    common = {
        "patch_size": 16,
        "temporal_patch_size": 2,
        "merge_size": 2,
        "image_mean": [0.5] * 3,
        "image_std": [0.5] * 3,
    }
    image = {"image_processor_type": "Qwen2VLImageProcessorFast", **common}
    image["size"] = {"shortest_edge": 64 * 64, "longest_edge": 512 * 512}
    video = {"video_processor_type": "Qwen3VLVideoProcessor", **common, "fps": 2, "min_frames": 4, "max_frames": 768}
    video["size"] = {"shortest_edge": 64 * 64, "longest_edge": 512 * 512}
    (path / "preprocessor_config.json").write_text(json.dumps(image, indent=1))
    (path / "video_preprocessor_config.json").write_text(json.dumps(video, indent=1))


def main() -> None:
    parser = argparse.ArgumentParser(description="Write a random checkpoint in the released layout.")
    parser.add_argument("path", type=Path)
    parser.add_argument("--preset", choices=PRESETS, default="tiny")
    parser.add_argument("--dtype", choices=("F32", "BF16"), default="BF16")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--shards", type=int, default=3)
    parser.add_argument("--yarn", type=float, default=1.0, help="YaRN factor")
    parser.add_argument("--vision", action="store_true", help="with a vision tower")
    parser.add_argument("--skeleton", action="store_true", help="headers and holes of the whole 397B in 94 shards")
    args = parser.parse_args()
    if args.skeleton:
        write_skeleton(args.path, RELEASED, 94)
        return
    write(args.path, args.preset, args.dtype, args.seed, args.shards, args.yarn, args.vision)


if __name__ == "__main__":
    main()
