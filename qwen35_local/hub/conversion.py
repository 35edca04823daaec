"""The plan of a conversion, from headers alone: every released tensor becomes tensors of an MLX checkpoint. Pure.

Each source shard becomes one output shard, so that shards can come, be converted and go one at a time. Inside a
shard the output's header is known before any data is read: the tensors are written to their places in any order.
"""

import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from ..checkpoint.files import ITEM_BITS, TensorInfo
from ..checkpoint.names import canonical, is_zero_centred
from ..errors import CheckpointError, UsageError
from ..model.config import Quantization
from .recipe import Recipe

Kind = Literal["pack", "cast", "plus one", "transpose", "as is"]


@dataclass(frozen=True, slots=True)
class Output:
    """A tensor of the new checkpoint, at `offset` in its file's data."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    offset: int = 0

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * ITEM_BITS[self.dtype] // 8


@dataclass(frozen=True, slots=True)
class Module:
    """A module of the new checkpoint made from rows `rows` of each matrix of its source; weight, scales, biases."""

    path: str
    rows: slice
    packing: Quantization | None
    outputs: tuple[Output, ...]


@dataclass(frozen=True, slots=True)
class Step:
    """One source tensor and what becomes of it."""

    source: TensorInfo
    kind: Kind
    modules: tuple[Module, ...]

    @property
    def outputs(self) -> Iterable[Output]:
        return (output for module in self.modules for output in module.outputs)


@dataclass(frozen=True, slots=True)
class Shard:
    """One output file."""

    source: str
    name: str
    steps: tuple[Step, ...]

    @property
    def header(self) -> bytes:
        """The safetensors header, its length included; data follows."""
        entries: dict[str, Any] = {"__metadata__": {"format": "mlx"}}
        for output in sorted((o for step in self.steps for o in step.outputs), key=lambda o: o.offset):
            span = [output.offset, output.offset + output.nbytes]
            entries[output.name] = {"dtype": output.dtype, "shape": list(output.shape), "data_offsets": span}
        text = json.dumps(entries, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)
        return len(text).to_bytes(8, "little") + text

    @property
    def data_bytes(self) -> int:
        return sum(output.nbytes for step in self.steps for output in step.outputs)

    @property
    def source_bytes(self) -> int:
        return sum(step.source.nbytes for step in self.steps)


@dataclass(frozen=True, slots=True)
class Conversion:
    """The whole of it."""

    recipe: Recipe
    shards: tuple[Shard, ...]
    dropped: int  # bytes of source tensors that are left out

    @property
    def source_bytes(self) -> int:
        return sum(shard.source_bytes for shard in self.shards)

    @property
    def data_bytes(self) -> int:
        return sum(shard.data_bytes for shard in self.shards)

    def classes(self) -> dict[str, dict[str, Any]]:
        """Bytes of the output by what the tensors are for."""
        table: dict[str, dict[str, Any]] = {}
        for step in (step for shard in self.shards for step in shard.steps):
            row = table.setdefault(tensor_class(canonical(step.source.name)), {"in": 0, "out": 0, "as": Counter()})
            row["in"] += step.source.nbytes
            row["out"] += sum(output.nbytes for output in step.outputs)
            for module in step.modules:
                row["as"][str(module.packing) if module.packing else module.outputs[0].dtype.lower()] += 1
        return table


def tensor_class(name: str) -> str:
    """What a tensor (canonical name) is for, in a word or two."""
    if name.startswith("visual."):
        return "vision"
    if name.startswith("mtp."):
        return "mtp"
    for part, kind in (
        (".mlp.experts.", "routed experts"), (".mlp.shared_expert.", "shared experts"), (".mlp.", "routers and gates"),
        (".self_attn.", "attention"), ("norm", "norms"),
    ):  # fmt: skip
        if part in name and not (part == "norm" and ".linear_attn." in name):
            return kind
    return "delta net" if ".linear_attn." in name else "embedding and head"


def plan_conversion(
    tensors: Mapping[str, TensorInfo], recipe: Recipe, vision: bool = True, mtp: bool = True
) -> Conversion:
    """What becomes of a released checkpoint's tensors. Raises CheckpointError if they are not the bf16 release."""
    shards: dict[str, list[TensorInfo]] = {}
    dropped = 0
    for tensor in tensors.values():
        name = canonical(tensor.name)
        if (name.startswith("visual.") and not vision) or (name.startswith("mtp.") and not mtp):
            dropped += tensor.nbytes
            continue
        shards.setdefault(tensor.file.name, []).append(tensor)
    _check_released(tensors.values())
    names = sorted(shards)
    made = []
    for number, source in enumerate(names, 1):
        offset, steps = 0, []
        for tensor in sorted(shards[source], key=lambda t: t.offset):
            step, offset = _placed(_step(tensor, recipe), offset)
            steps.append(step)
        made.append(Shard(source, f"model-{number:05}-of-{len(names):05}.safetensors", tuple(steps)))
    return Conversion(recipe, tuple(made), dropped)


def _check_released(tensors: Iterable[TensorInfo]) -> None:
    for tensor in tensors:
        if tensor.name.endswith(("weight_scale_inv", ".scales", ".qweight")) or tensor.dtype.startswith("F8"):
            raise CheckpointError(f"{tensor.name} is quantised already: convert the bf16 release")
        if tensor.dtype not in ("BF16", "F32", "F16"):
            raise CheckpointError(f"{tensor.name} is {tensor.dtype}: only BF16, F16 and F32 are converted")
        if tensor.name.endswith("conv1d.weight") and (len(tensor.shape) != 3 or tensor.shape[1] != 1):
            raise CheckpointError(f"{tensor.name} is {list(tensor.shape)}: this is an MLX conversion already")


def _placed(step: Step, offset: int) -> tuple[Step, int]:
    modules = []
    for module in step.modules:
        outputs = []
        for output in module.outputs:
            outputs.append(Output(output.name, output.dtype, output.shape, offset))
            offset += output.nbytes
        modules.append(Module(module.path, module.rows, module.packing, tuple(outputs)))
    return Step(step.source, step.kind, tuple(modules)), offset


def _step(tensor: TensorInfo, recipe: Recipe) -> Step:
    name = canonical(tensor.name)
    path = mlx_path(name)
    rows = tensor.shape[-2] if len(tensor.shape) > 1 else 1
    if name.endswith(".experts.gate_up_proj"):
        if rows % 2:
            raise CheckpointError(f"{tensor.name} has {rows} rows, which are not gate above up")
        half = rows // 2
        parts = {"gate_proj": slice(0, half), "up_proj": slice(half, rows)}
        stem = path.removesuffix("experts.gate_up_proj") + "switch_mlp."
        return _matrix(tensor, {stem + part: span for part, span in parts.items()}, recipe.of(name))
    if name.endswith(".experts.down_proj"):
        target = path.removesuffix("experts.down_proj") + "switch_mlp.down_proj"
        return _matrix(tensor, {target: slice(0, rows)}, recipe.of(name))
    if name.startswith("visual."):
        shape, dtype = tuple(tensor.shape), tensor.dtype
        if name == "visual.patch_embed.proj.weight" and len(shape) == 5:  # MLX convolutions have channels last
            return _plain(tensor, "transpose", path, dtype, (shape[0], *shape[2:], shape[1]))
        return _plain(tensor, "as is", path, dtype, shape)
    if name.endswith("conv1d.weight"):
        return _plain(tensor, "transpose", path, tensor.dtype, (*tensor.shape[:1], *tensor.shape[2:], 1))
    if is_zero_centred(name):
        return _plain(tensor, "plus one", path, "F32", tensor.shape)
    if len(tensor.shape) == 2 and name.endswith(".weight"):
        module = path.removesuffix(".weight")
        return _matrix(tensor, {module: slice(0, rows)}, recipe.of(name.removesuffix(".weight")))
    return _plain(tensor, "as is", path, tensor.dtype, tensor.shape)


def _plain(tensor: TensorInfo, kind: Kind, path: str, dtype: str, shape: tuple[int, ...]) -> Step:
    module = Module(path, slice(0, 1), None, (Output(path, dtype, shape),))
    return Step(tensor, kind, (module,))


def _matrix(tensor: TensorInfo, parts: Mapping[str, slice], packing: Quantization | None) -> Step:
    *stack, _, columns = tensor.shape
    if packing is not None and columns % packing.group_size:
        packing = None  # as MLX's own conversions do
    modules = []
    for path, rows in parts.items():
        lead = (*stack, rows.stop - rows.start)
        outputs = [Output(f"{path}.weight", "BF16", (*lead, columns))]
        if packing is not None:
            groups = (*lead, columns // packing.group_size)
            scale = "BF16" if packing.has_biases else "U8"
            outputs = [
                Output(f"{path}.weight", "U32", (*lead, columns * packing.bits // 32)),
                Output(f"{path}.scales", scale, groups),
                *([Output(f"{path}.biases", scale, groups)] if packing.has_biases else []),
            ]
        modules.append(Module(path, rows, packing, tuple(outputs)))
    return Step(tensor, "pack" if packing else "cast", tuple(modules))


def mlx_path(name: str) -> str:
    """The name that MLX conversions give a tensor or module of this canonical name."""
    if name.startswith("visual."):
        return "vision_tower." + name.removeprefix("visual.")
    return "language_model." + (name if name.startswith(("lm_head", "mtp.")) else f"model.{name}")


def converted_config(config: Mapping[str, Any], steps: Iterable[Step], recipe: Recipe) -> dict[str, Any]:
    """config.json of the result: `quantization` names the default and, with its mode, every module that differs."""
    if "quantization" in config or "quantization_config" in config:
        raise UsageError("config.json says that this checkpoint is quantised already: convert the bf16 release")
    entry: dict[str, Any] = {
        "group_size": recipe.default.group_size, "bits": recipe.default.bits, "mode": recipe.default.mode,
    }  # fmt: skip
    for step in steps:
        for module in step.modules if step.kind in ("pack", "cast") else ():
            if (p := module.packing) != recipe.default:
                entry[module.path] = {"group_size": p.group_size, "bits": p.bits, "mode": p.mode} if p else False
    return dict(config) | {"quantization": entry, "quantization_config": entry}
