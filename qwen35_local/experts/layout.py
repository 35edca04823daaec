"""Where an expert's bytes are, and how they lie in memory. Pure: extents and shapes, no file is touched.

In memory a layer's experts are at most six arrays, its *parts* (`gate_up.weight`, `gate_up.scales`, `gate_up.biases`
and the same of `down`), each [slots, rows, columns]. On disk a part of one expert is one run of bytes (released and
packed layouts) or two (MLX conversions keep gate and up apart: the halves of its rows). A *piece* says where such a
run is for every expert at once, so that the index of a whole model stays small: nothing here grows with 205 GB.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ..checkpoint.files import ITEM_BITS, TensorInfo
from ..errors import CheckpointError, ConfigError

SUFFIXES = ("weight", "scales", "biases")


@dataclass(frozen=True, slots=True)
class Part:
    """One array of a layer's experts: [slots, *shape] of the safetensors type `dtype`."""

    matrix: str  # "gate_up" or "down"
    suffix: str  # "weight", "scales" or "biases"
    dtype: str
    shape: tuple[int, int]

    @property
    def name(self) -> str:
        return f"{self.matrix}.{self.suffix}"

    @property
    def nbytes(self) -> int:
        """Of one expert."""
        return self.shape[0] * self.shape[1] * ITEM_BITS[self.dtype] // 8


@dataclass(frozen=True, slots=True)
class Piece:
    """One run of bytes: expert e's are the `nbytes` from `offset + e * stride` of `file`, and belong at byte `start`
    of its slot in part number `part`."""

    part: int
    start: int
    nbytes: int
    file: Path
    offset: int
    stride: int = 0


@dataclass(frozen=True, slots=True)
class Extent:
    """Bytes of one expert: where they are, and where in a slot they belong (`part`, `start`)."""

    file: Path
    offset: int
    nbytes: int
    part: int
    start: int


@dataclass(frozen=True, slots=True)
class LayerLayout:
    """One layer's experts. `pieces` has one row for all experts, or one row for each (experts stored one by one)."""

    name: str
    experts: int
    parts: tuple[Part, ...]
    pieces: tuple[tuple[Piece, ...], ...]

    @property
    def expert_nbytes(self) -> int:
        return sum(part.nbytes for part in self.parts)

    @property
    def nbytes(self) -> int:
        return self.experts * self.expert_nbytes

    @property
    def files(self) -> tuple[Path, ...]:
        return tuple(dict.fromkeys(piece.file for row in self.pieces for piece in row))

    def extents(self, expert: int) -> tuple[Extent, ...]:
        """Everything to read for one expert; together exactly its parts."""
        if not 0 <= expert < self.experts:
            raise IndexError(f"expert {expert} of {self.name}, which has {self.experts}")
        row = self.pieces[expert if len(self.pieces) > 1 else 0]
        return tuple(Extent(p.file, p.offset + expert * p.stride, p.nbytes, p.part, p.start) for p in row)


def layer_layout(tensors: Mapping[str, TensorInfo], mlp: str, experts: int) -> LayerLayout:
    """The experts of the layer whose tensors (canonical names) start with `mlp`, in any layout that the port loads.

    Layouts: released (`experts.gate_up_proj`, fused), MLX (`switch_mlp.gate_proj` …), one by one (`experts.7.…`).
    """
    fused = f"{mlp}.experts.gate_up_proj"
    if fused in tensors or f"{fused}.weight" in tensors:
        modules = {"gate_up": (fused,), "down": (f"{mlp}.experts.down_proj",)}
    elif f"{mlp}.switch_mlp.gate_proj.weight" in tensors:
        stem = f"{mlp}.switch_mlp"
        modules = {"gate_up": (f"{stem}.gate_proj", f"{stem}.up_proj"), "down": (f"{stem}.down_proj",)}
    elif f"{mlp}.experts.0.gate_proj.weight" in tensors:
        return _one_by_one(tensors, mlp, experts)
    else:
        raise CheckpointError(f"the checkpoint has no experts under {mlp} in any known layout")
    parts, pieces = [], []
    for matrix, names in modules.items():
        for suffix in SUFFIXES:
            found = [_named(tensors, name, suffix) for name in names]
            if found[0] is None and suffix != "weight":
                continue
            stacks = [_stacked(tensor, name, suffix, experts) for tensor, name in zip(found, names, strict=True)]
            part = _part(matrix, suffix, stacks, [stack.shape[1:] for stack in stacks])
            start = 0
            for stack in stacks:
                stride = stack.nbytes // experts
                pieces.append(Piece(len(parts), start, stride, stack.file, stack.offset, stride))
                start += stride
            parts.append(part)
    return LayerLayout(mlp, experts, tuple(parts), (tuple(pieces),))


def _named(tensors: Mapping[str, TensorInfo], module: str, suffix: str) -> TensorInfo | None:
    """Released expert stacks are called `X`, every other weight `X.weight`."""
    return tensors.get(f"{module}.{suffix}") or (tensors.get(module) if suffix == "weight" else None)


def _stacked(tensor: TensorInfo | None, module: str, suffix: str, experts: int) -> TensorInfo:
    if tensor is None:
        raise CheckpointError(f"the checkpoint has no tensor {module}.{suffix}")
    if len(tensor.shape) != 3 or tensor.shape[0] != experts:
        raise ConfigError(f"{tensor.name} is {list(tensor.shape)}, config.json asks for {experts} experts")
    return tensor


def _part(matrix: str, suffix: str, tensors: list[TensorInfo], shapes: list[tuple[int, ...]]) -> Part:
    """The part that these tensors' rows make, one above the other."""
    if len({(tensor.dtype, shape) for tensor, shape in zip(tensors, shapes, strict=True)}) > 1:
        kinds = " and ".join(f"{tensor.name} is {tensor.dtype} {list(tensor.shape)}" for tensor in tensors[:2])
        raise ConfigError(f"{kinds}: they must be packed alike")
    rows, columns = shapes[0]
    return Part(matrix, suffix, tensors[0].dtype, (rows * len(tensors), columns))


def _one_by_one(tensors: Mapping[str, TensorInfo], mlp: str, experts: int) -> LayerLayout:
    if (surplus := f"{mlp}.experts.{experts}.gate_proj.weight") in tensors:
        raise ConfigError(f"config.json says {experts} experts, but the checkpoint has {surplus}")
    first: tuple[Part, ...] | None = None
    rows = []
    for expert in range(experts):
        stem = f"{mlp}.experts.{expert}"
        parts, row = [], []
        for matrix, names in {"gate_up": ("gate_proj", "up_proj"), "down": ("down_proj",)}.items():
            for suffix in SUFFIXES:
                found = [tensors.get(f"{stem}.{name}.{suffix}") for name in names]
                if suffix != "weight" and found[0] is None:
                    continue
                if missing := [n for n, tensor in zip(names, found, strict=True) if tensor is None]:
                    raise CheckpointError(f"the checkpoint has no tensor {stem}.{missing[0]}.{suffix}")
                present = [tensor for tensor in found if tensor is not None]
                start = 0
                for tensor in present:
                    row.append(Piece(len(parts), start, tensor.nbytes, tensor.file, tensor.offset))
                    start += tensor.nbytes
                parts.append(_part(matrix, suffix, present, [tensor.shape for tensor in present]))
        if first is not None and tuple(parts) != first:
            raise ConfigError(f"the experts of {mlp} are packed differently from one another")
        first = tuple(parts)
        rows.append(tuple(row))
    assert first is not None
    return LayerLayout(mlp, experts, first, tuple(rows))
