"""A GGUF model: one file or all its parts, checked together, and the sizes that planning needs."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import CheckpointError, ConfigError, ModelNotFound
from .header import GgufTensor, read_header
from .numbers import check_language

ARCHITECTURE = "qwen35moe"
VISION_PREFIX = "mmproj"  # of the names of files that hold vision parts
PART = re.compile(r"^(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf$")
EXPERT = re.compile(r"^blk\.(\d+)\.ffn_(gate|up|down|gate_up)_exps\.weight$")


@dataclass(frozen=True, slots=True)
class GgufModel:
    """`path` is the first file, `files` all of them; `metadata` is the first file's, `tensors` are everyone's."""

    path: Path
    files: tuple[Path, ...]
    metadata: Mapping[str, Any]
    tensors: Mapping[str, GgufTensor]
    nbytes: int

    @classmethod
    def open(cls, path: Path) -> "GgufModel":
        """Read and check every header; no tensor data is touched. Any part of a split model names the whole."""
        files = parts_of(path)
        headers = [read_header(file) for file in files]
        tensors: dict[str, GgufTensor] = {}
        for number, header in enumerate(headers):
            _check_part(header.path, header.metadata, number, len(files))
            for name, tensor in header.tensors.items():
                if name in tensors:
                    raise CheckpointError(f"{name} is in {tensors[name].file.name} and in {header.path.name}")
                tensors[name] = tensor
        first = headers[0].metadata
        total = first.get("split.tensors.count", len(tensors))
        if total != len(tensors):
            raise CheckpointError(
                f"{files[0].name} and its parts hold {len(tensors)} tensors, they should hold {total}"
            )
        model = cls(files[0], tuple(files), first, tensors, sum(header.size for header in headers))
        model._check_architecture()
        return model

    def _check_architecture(self) -> None:
        found = self.metadata.get("general.architecture")
        if self.metadata.get("general.type") == "mmproj" or found == "clip":
            raise ConfigError(f"{self.path.name} is the vision part of a model: give the file of the language model")
        if found != ARCHITECTURE:
            raise ConfigError(f"{self.path.name} holds a {found!r} model: this engine runs {ARCHITECTURE} only")
        check_language(self.path.name, ARCHITECTURE, self.metadata)

    def number(self, key: str, default: int | None = None) -> int:
        """A metadata value of the architecture, as a whole number."""
        value = self.metadata.get(f"{ARCHITECTURE}.{key}", default)
        if isinstance(value, bool) or not isinstance(value, int):
            raise ConfigError(f"{self.path.name} lacks {ARCHITECTURE}.{key}, or it is no whole number: {value!r}")
        return value

    @property
    def name(self) -> str:
        """What the file is called, or all the parts together."""
        part = PART.match(self.path.name)
        return part["stem"] if part else self.path.stem

    @property
    def layers(self) -> int:
        """Layers of the trunk; the blocks of the MTP head come after them."""
        return self.number("block_count") - self.number("nextn_predict_layers", 0)

    @property
    def vocab_size(self) -> int:
        return self._tensor("token_embd.weight").shape[0]

    def _tensor(self, name: str) -> GgufTensor:
        if name not in self.tensors:
            raise CheckpointError(f"{self.path.name} has no tensor {name}")
        return self.tensors[name]

    @property
    def parameters(self) -> int:
        """Weights of the trunk."""
        count = 0
        for name, tensor in self.tensors.items():
            if not self._is_mtp(name):
                elements = 1
                for n in tensor.shape:
                    elements *= n
                count += elements
        return count

    def _is_mtp(self, name: str) -> bool:
        block = re.match(r"blk\.(\d+)\.", name)
        return block is not None and int(block[1]) >= self.layers

    @property
    def expert_bytes(self) -> tuple[int, ...]:
        """Bytes of the routed experts, by layer of the trunk."""
        sizes = [0] * self.layers
        for name, tensor in self.tensors.items():
            match = EXPERT.match(name)
            if match and int(match[1]) < len(sizes):
                sizes[int(match[1])] += tensor.nbytes
        return tuple(sizes)

    @property
    def trunk_bytes(self) -> int:
        """Bytes that running needs: everything but the MTP head, which llama.cpp does not load unless asked."""
        return sum(tensor.nbytes for name, tensor in self.tensors.items() if not self._is_mtp(name))

    @property
    def quantization(self) -> str:
        """The type that most bytes have."""
        return mostly(self.tensors.values())


def mostly(tensors: Iterable[GgufTensor]) -> str:
    """The type that most bytes have."""
    sizes: dict[str, int] = {}
    for tensor in tensors:
        sizes[tensor.type.name] = sizes.get(tensor.type.name, 0) + tensor.nbytes
    return max(sizes, key=sizes.__getitem__, default="none")


def find_gguf(path: Path) -> Path | None:
    """The GGUF model that `path` names: a file, or a directory tree with exactly one model; None if there is none."""
    if path.is_file():
        return path if path.suffix == ".gguf" else None
    if not path.is_dir():
        return None
    firsts = []
    for file in sorted(path.rglob("*.gguf")):
        part = PART.match(file.name)
        if not file.name.startswith(VISION_PREFIX) and (part is None or int(part["number"]) == 1):
            firsts.append(file)
    if len(firsts) > 1:
        names = ", ".join(file.name for file in firsts[:4])
        raise ModelNotFound(f"{path} holds {len(firsts)} GGUF models ({names} …): name the file")
    return firsts[0] if firsts else None


def parts_of(path: Path) -> list[Path]:
    """All files of the model that `path` is one file of, in order."""
    part = PART.match(path.name)
    if part is None:
        return [path]
    count = int(part["count"])
    names = [f"{part['stem']}-{number + 1:05d}-of-{count:05d}.gguf" for number in range(count)]
    files = [path.with_name(name) for name in names]
    if missing := [file.name for file in files if not file.exists()]:
        raise CheckpointError(
            f"{len(missing)} of {count} parts are missing in {path.parent}, the first is {missing[0]}"
        )
    return files


def _check_part(path: Path, metadata: Mapping[str, Any], number: int, count: int) -> None:
    if metadata.get("split.count", 1) != count:
        raise CheckpointError(
            f"{path.name} says that it is one of {metadata.get('split.count', 1)} parts, its name says {count}"
        )
    if (held := metadata.get("split.no", 0)) != number:
        part = held + 1 if isinstance(held, int) else repr(held)
        raise CheckpointError(f"{path.name} holds part {part} of {count}, not {number + 1}: it was renamed")
