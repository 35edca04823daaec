"""safetensors files: headers read and checked by us, every tensor an extent (file, offset, length). No tensor data.

The format is 8 bytes of little-endian header length, a JSON header, then the data. A header can lie in many ways, and
a lie found after hours of streaming is worth nothing: everything is checked before anything is mapped or read.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import CheckpointError, ConfigError, ModelNotFound

MAX_HEADER = 100_000_000  # bytes; the safetensors library refuses more, and the 397B's whole index needs 0.2 MB
ITEM_BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "U16": 16, "I16": 16, "F16": 16, "BF16": 16,
    "U32": 32, "I32": 32, "F32": 32, "U64": 64, "I64": 64, "F64": 64,
}  # fmt: skip
INDEX = "model.safetensors.index.json"


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """Where a tensor's bytes are. `offset` counts from the start of the file."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    file: Path
    offset: int
    nbytes: int


def read_header(path: Path) -> dict[str, TensorInfo]:
    """The tensors of one safetensors file by name. Raises CheckpointError when the header and the file disagree."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if size < 8:
                raise CheckpointError(f"{path.name} is truncated: {size} bytes, a safetensors header needs 8")
            if length > MAX_HEADER:
                raise CheckpointError(_not_safetensors(path, length))
            if 8 + length > size:
                raise CheckpointError(f"{path.name} is truncated: the header ends at {8 + length}, the file at {size}")
            text = file.read(length)
    except OSError as error:
        raise CheckpointError(f"cannot read {path.name}: {error.strerror}") from error
    try:
        header = json.loads(text, object_pairs_hook=_without_duplicates)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path.name} has a damaged header: {error}") from error
    if not isinstance(header, dict):
        raise CheckpointError(f"{path.name} has a damaged header: not a JSON object")
    header.pop("__metadata__", None)
    start = 8 + length
    tensors = {name: _tensor(path, name, entry, start) for name, entry in header.items()}
    _check_coverage(path, tensors.values(), start, size)
    return tensors


def _not_safetensors(path: Path, length: int) -> str:
    with path.open("rb") as file:
        if file.read(24).startswith(b"version https://git-lfs"):
            return f"{path.name} is a Git LFS pointer, not the data: download the file itself"
    return f"{path.name} is not a safetensors file: it claims a header of {length} bytes, at most {MAX_HEADER} are read"


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(result := dict(pairs)) != len(pairs):
        raise ValueError("a name occurs twice")
    return result


def _tensor(path: Path, name: str, entry: Any, start: int) -> TensorInfo:
    match entry:
        case {"dtype": str(dtype), "shape": list(shape), "data_offsets": [int(begin), int(end)]}:
            pass
        case _:
            raise CheckpointError(f"{path.name}: the header entry of {name} lacks dtype, shape or data_offsets")
    if dtype not in ITEM_BITS:
        raise CheckpointError(f"{path.name}: {name} has unknown dtype {dtype!r}")
    if any(not isinstance(n, int) or isinstance(n, bool) or n < 0 for n in shape):
        raise CheckpointError(f"{path.name}: {name} has an impossible shape {shape}")
    elements = 1
    for n in shape:
        elements *= n
    nbytes = elements * ITEM_BITS[dtype] // 8
    if begin < 0 or end - begin != nbytes:
        raise CheckpointError(f"{path.name}: {name} is {dtype} {shape}, {nbytes} bytes, but spans {begin}..{end}")
    return TensorInfo(name, dtype, tuple(shape), path, start + begin, nbytes)


def _check_coverage(path: Path, tensors: Iterable[TensorInfo], start: int, size: int) -> None:
    """Data must follow the header without overlap or gap and end with the file."""
    position, previous = start, "the header"
    for tensor in sorted(tensors, key=lambda t: (t.offset, t.nbytes)):
        if tensor.offset != position:
            what = "overlaps" if tensor.offset < position else "leaves a gap after"
            raise CheckpointError(
                f"{path.name}: {tensor.name} at {tensor.offset} {what} {previous} (ends at {position})"
            )
        position, previous = position + tensor.nbytes, tensor.name
    if position > size:
        raise CheckpointError(f"{path.name} is truncated: {previous} ends at {position}, the file at {size}")
    if position < size:
        raise CheckpointError(f"{path.name} has {size - position} bytes after its last tensor: it is damaged")


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file; ConfigError says which file is missing, unreadable or damaged."""
    try:
        value = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise ConfigError(f"{path.name} is missing in {path.parent}") from None
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path.name} is not valid JSON: {error}") from error
    if not isinstance(value, dict):
        raise ConfigError(f"{path.name} must hold a JSON object, not {type(value).__name__}")
    return value


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A model directory: its config.json and where every tensor lies, under the names in the files."""

    path: Path
    config: Mapping[str, Any]
    tensors: Mapping[str, TensorInfo]

    @classmethod
    def open(cls, path: Path) -> "Checkpoint":
        """Read and check config and headers of a directory; no tensor data is touched."""
        if not path.is_dir():
            raise ModelNotFound(f"no model directory at {path}")
        return cls(path, read_json(path / "config.json"), read_tensors(path))

    @property
    def nbytes(self) -> int:
        return sum(tensor.nbytes for tensor in self.tensors.values())


def read_tensors(path: Path) -> dict[str, TensorInfo]:
    """All tensors of a directory, by its index where there is one, else from every *.safetensors file in it."""
    if (path / INDEX).exists():
        return _indexed(path)
    files = sorted(path.glob("*.safetensors"))
    if not files:
        raise CheckpointError(f"no .safetensors file in {path}")
    tensors: dict[str, TensorInfo] = {}
    for file in files:
        for name, tensor in read_header(file).items():
            if name in tensors:
                raise CheckpointError(f"{name} is in {tensors[name].file.name} and in {file.name}")
            tensors[name] = tensor
    return tensors


def _indexed(path: Path) -> dict[str, TensorInfo]:
    weight_map = read_json(path / INDEX).get("weight_map")
    if not isinstance(weight_map, dict) or not all(isinstance(name, str) for name in weight_map.values()):
        raise CheckpointError(f"{INDEX} has no weight_map of tensor names to files")
    names = sorted(set(weight_map.values()))
    if outside := [name for name in names if Path(name).name != name]:
        raise CheckpointError(f"{INDEX} names {outside[0]!r}, a file outside the directory")
    missing = [name for name in names if not (path / name).exists()]
    if missing:
        raise CheckpointError(f"{len(missing)} of {len(names)} shards are missing in {path}, the first is {missing[0]}")
    shards = {name: read_header(path / name) for name in names}
    tensors = {}
    for tensor, shard in weight_map.items():
        if tensor not in shards[shard]:
            raise CheckpointError(f"{INDEX} says {tensor} is in {shard}, but it is not there")
        tensors[tensor] = shards[shard][tensor]
    return tensors
