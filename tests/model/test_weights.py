"""Every known layout of one model gives the same logits; what contradicts config.json is refused."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import mlx.core as mx
import numpy as np
import pytest
from tiny import load

from qwen35_local.errors import CheckpointError, ConfigError

Arrays = dict[str, mx.array]


def read(path: Path) -> Arrays:
    arrays: Arrays = {}
    for file in sorted(path.glob("*.safetensors*")):
        if file.suffix != ".json":
            arrays.update(cast(Arrays, mx.load(str(file))))
    return arrays


def write(path: Path, arrays: Arrays, config: dict) -> Path:
    path.mkdir(exist_ok=True)
    mx.save_safetensors(str(path / "model.safetensors"), arrays)
    (path / "config.json").write_text(json.dumps(config))
    return path


def as_mlx(arrays: Arrays) -> Arrays:
    """What MLX conversions store: their names, gate and up apart, taps last but one, norms as 1 + w."""
    out: Arrays = {}
    for name, value in arrays.items():
        name = name.replace("model.language_model.", "language_model.model.").replace(
            "lm_head", "language_model.lm_head"
        )
        if name.startswith("mtp."):
            continue
        if name.endswith("experts.gate_up_proj"):
            base = name.replace("experts.gate_up_proj", "switch_mlp")
            half = value.shape[1] // 2
            out[f"{base}.gate_proj.weight"], out[f"{base}.up_proj.weight"] = value[:, :half], value[:, half:]
        elif name.endswith("experts.down_proj"):
            out[name.replace("experts.down_proj", "switch_mlp.down_proj.weight")] = value
        elif name.endswith("conv1d.weight"):
            out[name] = mx.contiguous(value.swapaxes(1, 2))
        elif value.ndim == 1 and "norm" in name and "linear_attn" not in name:
            out[name] = value + 1.0
        else:
            out[name] = value
    return {name: mx.contiguous(value) for name, value in out.items()}


def one_by_one(arrays: Arrays) -> Arrays:
    """Experts apart, as some conversions drop the fused layout."""
    out: Arrays = {}
    for name, value in arrays.items():
        if name.endswith("experts.gate_up_proj"):
            half = value.shape[1] // 2
            for e in range(value.shape[0]):
                base = name.replace("gate_up_proj", str(e))
                out[f"{base}.gate_proj.weight"], out[f"{base}.up_proj.weight"] = value[e, :half], value[e, half:]
        elif name.endswith("experts.down_proj"):
            for e in range(value.shape[0]):
                out[name.replace("down_proj", f"{e}.down_proj.weight")] = value[e]
        else:
            out[name] = value
    return {name: mx.contiguous(value) for name, value in out.items()}


def text_only(arrays: Arrays) -> Arrays:
    return {name.replace("model.language_model.", "model."): value for name, value in arrays.items()}


@pytest.fixture(scope="module")
def released(checkpoints) -> tuple[Arrays, dict]:
    path = checkpoints["F32"]
    return read(path), json.loads((path / "config.json").read_text())


@pytest.mark.parametrize("layout", [as_mlx, one_by_one, text_only])
def test_layouts_agree(layout, released, models, golden, logits_of, tmp_path):
    arrays, config = released
    model = load(write(tmp_path / "m", layout(arrays), config))
    ids = golden["F32.ids"][:40]
    np.testing.assert_allclose(logits_of(model, ids), logits_of(models["F32"], ids), atol=2e-4)


def packed(arrays: Arrays, **kind: Any) -> tuple[Arrays, dict]:
    """Quantised as mlx-lm does, routers and shared gates at affine 8-bit; and the same weights unpacked again."""
    exact: Arrays = {}
    out: Arrays = {}
    overrides = {}
    for name, value in as_mlx(arrays).items():
        module = name.removesuffix(".weight")
        if value.ndim < 2 or name.endswith("conv1d.weight"):
            out[name] = exact[name] = value
            continue
        special = module.endswith((".gate", "shared_expert_gate"))
        how: dict[str, Any] = {"bits": 8, "group_size": 64} if special else kind
        if special:
            overrides[module] = how
        weight, scales, *biases = mx.quantize(value, **how)
        out[name], out[f"{module}.scales"] = weight, scales
        if biases:
            out[f"{module}.biases"] = biases[0]
        exact[name] = mx.dequantize(weight, scales, biases[0] if biases else None, dtype=mx.float32, **how)
    return out, {"exact": exact, "quantization": {**kind, **overrides}}


AFFINE = ((2, 32), (3, 64), (4, 64), (5, 64), (6, 64), (8, 32))
KINDS = [
    *({"bits": bits, "group_size": group, "mode": "affine"} for bits, group in AFFINE),
    {"bits": 4, "group_size": 32, "mode": "mxfp4"},
    {"bits": 4, "group_size": 16, "mode": "nvfp4"},
    {"bits": 8, "group_size": 32, "mode": "mxfp8"},
]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: f"{kind['mode']}{kind['bits']}")
def test_every_packing_equals_its_unpacked_weights(kind, released, golden, logits_of, tmp_path):
    arrays, config = released
    out, made = packed(arrays, **kind)
    quantised = load(write(tmp_path / "q", out, {**config, "quantization": made["quantization"]}))
    plain = load(write(tmp_path / "p", made["exact"], config))
    ids = golden["F32.ids"][:40]
    ours, expected = logits_of(quantised, ids), logits_of(plain, ids)
    assert np.linalg.norm(ours - expected) <= 3e-5 * np.linalg.norm(expected)


def refuse(sentence: str, kind: type[Exception], arrays: Arrays, config: dict, path: Path) -> None:
    with pytest.raises(kind, match=sentence):
        load(write(path, arrays, config))


def change(arrays: Arrays, name: str, f: Callable[[mx.array], mx.array]) -> Arrays:
    return {**arrays, name: f(arrays[name])}


ROUTER = "model.language_model.layers.0.mlp.gate.weight"


def test_wrong_shape_names_both(released, tmp_path):
    arrays, config = released
    fewer = change(arrays, ROUTER, lambda a: a[:12])
    refuse(r"gate\.weight is \[12, 128\], config\.json asks for \[16, 128\]", ConfigError, fewer, config, tmp_path)


def test_wrong_expert_count_in_config(released, tmp_path):
    arrays, config = released
    text = {**config["text_config"], "num_experts": 8}
    refuse(r"is \[16, .*asks for \[8, ", ConfigError, arrays, {**config, "text_config": text}, tmp_path)
    refuse("8 experts, but the checkpoint has", ConfigError, change(one_by_one(arrays), ROUTER, lambda a: a[:8]),
           {**config, "text_config": text}, tmp_path)  # fmt: skip


def test_wrong_dtype_is_refused(released, tmp_path):
    arrays, config = released
    refuse("is I32, expected BF16 or F16 or F32", CheckpointError, change(arrays, ROUTER, lambda a: a.astype(mx.int32)),
           config, tmp_path)  # fmt: skip


def test_a_missing_tensor_is_named(released, tmp_path):
    arrays, config = released
    rest = {name: value for name, value in arrays.items() if name != ROUTER}
    refuse(r"no tensor layers\.0\.mlp\.gate", CheckpointError, rest, config, tmp_path)
    rest = {name: value for name, value in arrays.items() if "layers.1.mlp.experts" not in name}
    refuse(r"no experts under layers\.1\.mlp", CheckpointError, rest, config, tmp_path)


def test_contradictory_quantisation_is_refused(released, tmp_path):
    arrays, config = released
    kind = {"bits": 4, "group_size": 64, "mode": "affine"}
    out, made = packed(arrays, **kind)
    module = "language_model.model.layers.0.mlp.shared_expert.up_proj"
    refuse("says it is not quantised", ConfigError, out, config, tmp_path)
    refuse("says it is not quantised", ConfigError, out,
           {**config, "quantization": {**made["quantization"], module: False}}, tmp_path)  # fmt: skip
    wider = {**config, "quantization": {**made["quantization"], module: {"bits": 8, "group_size": 64}}}
    refuse(r"up_proj\.weight is \[64, 16\], config\.json asks for \[64, 32\]", ConfigError, out, wider, tmp_path)
    plain = {**out, f"{module}.weight": made["exact"][f"{module}.weight"]}
    plain = {name: value for name, value in plain.items() if name not in (f"{module}.scales", f"{module}.biases")}
    refuse("is quantised, but it has no scales", ConfigError, plain,
           {**config, "quantization": {**made["quantization"], module: kind}}, tmp_path)  # fmt: skip


def test_fp8_is_named(released, tmp_path):
    arrays, config = released
    name = ROUTER.replace("gate.weight", "shared_expert.up_proj")
    fp8 = {k: v for k, v in arrays.items() if k != f"{name}.weight"} | {f"{name}.weight_scale_inv": mx.ones((1, 1))}
    refuse("FP8 block-scaled", CheckpointError, fp8, config, tmp_path)


def test_mixed_norm_forms_are_refused(released, tmp_path):
    arrays, config = released
    conv = "model.language_model.layers.0.linear_attn.conv1d.weight"
    mixed = change(arrays, conv, lambda a: mx.contiguous(a.swapaxes(1, 2)))
    refuse("the norms' form is unknown", CheckpointError, mixed, config, tmp_path)


def test_the_same_tensor_under_two_names(released, tmp_path):
    arrays, config = released
    twice = {**arrays, "language_model.lm_head.weight": arrays["lm_head.weight"]}
    refuse("are the same tensor", CheckpointError, twice, config, tmp_path)
