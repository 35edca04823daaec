"""A checkpoint of this architecture, in any layout that we read, as one GGUF file."""

from collections.abc import Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..checkpoint.files import Checkpoint, read_json
from ..errors import TokenizerError, UsageError
from ..events import Progress
from ..media.rules import read_rules
from ..model.config import ModelConfig
from . import projector
from .layout import Entry, entries, metadata
from .source import Source
from .types import BY_NAME, F32, WRITABLE, Type, pack
from .vocabulary import to_metadata
from .write import Planned, write_file

# How the source packs a matrix -> the type that keeps its values; affine codes have no exact counterpart.
KEPT = {"F32": "F32", "F16": "F16", "BF16": "BF16", "mxfp4": "MXFP4"}
CHOICES = ("auto", *(name.lower() for name in WRITABLE))


@dataclass(frozen=True, slots=True)
class Types:
    """What matrices and routed experts become. "auto" keeps the values as they are, or takes 8 bits where it cannot.

    Norms, biases, convolutions and routers are float32 always, as llama.cpp wants them.
    """

    matrices: str = "auto"
    experts: str = "auto"

    def __post_init__(self) -> None:
        for name in (self.matrices, self.experts):
            if name not in CHOICES:
                raise UsageError(f"a GGUF type must be one of {', '.join(CHOICES)}, not {name!r}", "type")

    def of(self, entry: Entry) -> Type:
        if entry.role == "exact":
            return F32
        asked = self.experts if entry.role == "expert" else self.matrices
        kind = BY_NAME[KEPT.get(entry.packing, "Q8_0") if asked == "auto" else asked.upper()]
        return kind if entry.shape[-1] % kind.block == 0 else BY_NAME["F16"]


def convert(path: Path, out: Path, types: Types | None = None) -> Generator[Progress, None, None]:
    """Write the checkpoint at `path` to the file `out`; yields progress in bytes, and is done when it ends.

    One tensor at most is in memory, of the expert stacks one expert. Closing the iterator leaves no file behind.
    """
    types = types or Types()
    checkpoint = Checkpoint.open(path)
    config = ModelConfig.from_dict(checkpoint.config)
    source = Source(checkpoint, config)
    tensors = list(entries(source))
    values: dict[str, Any] = {
        **metadata(config.text, path.name, source.has("mtp.fc")),
        "general.quantization_version": 2,
        **_tokenizer(path, config.text.vocab_size),
    }
    yield from _write(out, values, tensors, types)


def convert_vision(path: Path, out: Path, types: Types | None = None) -> Generator[Progress, None, None]:
    """Write the vision part of the checkpoint at `path` to the file `out`, as `convert` does the rest.

    ConfigError if it has none; see `has_vision`.
    """
    types = types or Types()
    checkpoint = Checkpoint.open(path)
    config = ModelConfig.from_dict(checkpoint.config)
    values = {**projector.metadata(config, path.name, *read_rules(path)), "general.quantization_version": 2}
    yield from _write(out, values, projector.entries(Source(checkpoint, config)), types)


def has_vision(path: Path) -> bool:
    """Whether the checkpoint has a vision tower: text-only conversions often keep its configuration without it."""
    checkpoint = Checkpoint.open(path)
    config = ModelConfig.from_dict(checkpoint.config)
    return config.vision is not None and Source(checkpoint, config).has("visual.patch_embed.proj")


def _write(
    out: Path, values: Mapping[str, Any], tensors: Iterable[Entry], types: Types
) -> Generator[Progress, None, None]:
    plan = [(Planned(entry.name, entry.shape, types.of(entry)), entry) for entry in tensors]
    total = sum(planned.nbytes for planned, _ in plan)
    packed = [(planned, _packed(entry, planned.type)) for planned, entry in plan]
    for written in write_file(out, values, packed):
        yield Progress("load", min(written, total), total, "bytes")


def _packed(entry: Entry, kind: Type) -> Iterator[np.ndarray]:
    return (pack(part, kind) for part in entry.parts())


def _tokenizer(path: Path, vocab_size: int) -> dict[str, Any]:
    if not (path / "tokenizer.json").exists():
        raise TokenizerError(f"{path} has no tokenizer.json: a GGUF file carries its tokenizer inside")
    return to_metadata(read_json(path / "tokenizer.json"), vocab_size, _chat_template(path))


def _chat_template(path: Path) -> str | None:
    """The template for other programs; ours does not read it."""
    if (file := path / "chat_template.jinja").is_file():
        return file.read_text(encoding="utf-8")
    if not (path / "tokenizer_config.json").is_file():
        return None
    template = read_json(path / "tokenizer_config.json").get("chat_template")
    return template if isinstance(template, str) else None
