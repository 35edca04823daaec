"""The packed store: a file a layer, a page-aligned record an expert (FORMAT.md). One read where a checkpoint needs six.

Writing survives `kill -9`: a layer gets its name only when all of it is on disk, the index is written last, and what
an earlier attempt left is taken up only if it came from the same checkpoint. No store without an index opens.
"""

import hashlib
import json
import os
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path
from typing import Any

from ..checkpoint.files import ITEM_BITS, read_json
from ..errors import CheckpointError, UsageError
from .layout import LayerLayout, Part, Piece

VERSION = 1
PAGE = 16 << 10  # bytes; a page of Apple's systems, and a multiple of every other's
INDEX, JOURNAL = "experts.json", "packing.json"
SAMPLE = 4096  # bytes of one expert of every layer that tell one checkpoint's store from another's


def pack(layouts: Sequence[LayerLayout], target: Path) -> Generator[tuple[int, int], None, None]:
    """Write a store of these layers; yields (bytes done, bytes in all) after each expert. Resumes where it stopped."""
    target.mkdir(parents=True, exist_ok=True)
    if (target / INDEX).exists():
        raise UsageError(f"{target} holds a packed store already: delete it to pack again")
    origin = _origin(layouts)
    if (target / JOURNAL).exists() and read_json(target / JOURNAL) != origin:
        raise UsageError(f"{target} holds a part of another checkpoint's store: delete it or choose another directory")
    _write_whole(target / JOURNAL, json.dumps(origin).encode())
    total, done = sum(layout.nbytes for layout in layouts), 0
    entries = []
    for number, layout in enumerate(layouts):
        file = target / f"layer-{number:03d}.experts"
        note = file.with_suffix(".json")
        if not (file.exists() and note.exists()):
            for nbytes in _write_layer(layout, file, note):
                done += nbytes
                yield done, total
        else:
            done += layout.nbytes
            yield done, total
        entries.append(read_json(note))
    index = {"version": VERSION, "page": PAGE, "layers": entries}
    _write_whole(target / INDEX, json.dumps(index, indent=1).encode())
    for name in [JOURNAL, *(Path(entry["file"]).with_suffix(".json").name for entry in entries)]:
        (target / name).unlink(missing_ok=True)


def open_store(path: Path) -> list[LayerLayout]:
    """The layers of a store, checked against the files' sizes; no record is read."""
    if not (path / INDEX).exists():
        why = "packing it did not finish: run it again" if (path / JOURNAL).exists() else f"it has no {INDEX}"
        raise CheckpointError(f"{path} is not a packed store: {why}")
    index = read_json(path / INDEX)
    if index.get("version") != VERSION:
        raise CheckpointError(f"{path / INDEX} is of version {index.get('version')!r}, this engine reads {VERSION}")
    try:
        return [_layer(path, entry) for entry in index["layers"]]
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path / INDEX} is damaged: {error!r}") from error


def check_origin(store: Sequence[LayerLayout], layouts: Sequence[LayerLayout]) -> None:
    """Raise CheckpointError unless `store` was packed from these layers: one may lie beside another fine-tuning or
    another packing of the same model, whose experts have the same names and sizes."""
    if len(store) != len(layouts):
        raise CheckpointError(
            f"the packed store has {len(store)} layers, this checkpoint {len(layouts)}: pack it again"
        )
    for number, (ours, theirs) in enumerate(zip(store, layouts, strict=True)):
        expert = number % theirs.experts
        alike = (ours.name, ours.experts, ours.parts) == (theirs.name, theirs.experts, theirs.parts)
        if not alike or _sample(ours, expert) != _sample(theirs, expert):
            raise CheckpointError(
                f"{ours.files[0]} was packed from another checkpoint: its experts are not those of {theirs.name} in "
                f"{theirs.files[0].name}; delete the store and pack again"
            )


def _sample(layout: LayerLayout, expert: int) -> bytes:
    """The first bytes of an expert's gate; a layout may keep gate and up apart, so no more than a gate has."""
    extent = layout.extents(expert)[0]
    return _read(extent.file, extent.offset, min(SAMPLE, layout.parts[0].nbytes // 2))


def verify(path: Path) -> Iterator[tuple[int, int]]:
    """Read everything and compare it with the index's SHA-256; yields (layers done, layers). Raises CheckpointError."""
    open_store(path)
    entries = read_json(path / INDEX)["layers"]
    for number, entry in enumerate(entries):
        with (path / entry["file"]).open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != entry["sha256"]:
            raise CheckpointError(
                f"{entry['file']} is damaged: its SHA-256 is {found[:16]}…, not {entry['sha256'][:16]}…"
            )
        yield number + 1, len(entries)


def _layer(path: Path, entry: dict[str, Any]) -> LayerLayout:
    name, experts, record = str(entry["file"]), int(entry["experts"]), int(entry["record"])
    if Path(name).name != name:
        raise CheckpointError(f"{path / INDEX} names {name!r}, a file outside the directory")
    parts = tuple(
        Part(p["matrix"], p["suffix"], p["dtype"], (int(p["rows"]), int(p["columns"]))) for p in entry["parts"]
    )
    if any(part.dtype not in ITEM_BITS for part in parts) or _padded(sum(p.nbytes for p in parts)) != record:
        raise CheckpointError(f"{path / INDEX}: the parts of {name} do not fill records of {record} bytes")
    file = path / name
    size = file.stat().st_size if file.exists() else 0
    if size != experts * record:
        raise CheckpointError(f"{name} has {size} bytes, {experts} records of {record} are {experts * record}")
    pieces, offset = [], 0
    for number, part in enumerate(parts):
        pieces.append(Piece(number, 0, part.nbytes, file, offset, record))
        offset += part.nbytes
    return LayerLayout(str(entry["name"]), experts, parts, (tuple(pieces),))


def _write_layer(layout: LayerLayout, file: Path, note: Path) -> Iterator[int]:
    record = _padded(layout.expert_nbytes)
    sha = hashlib.sha256()
    temporary = file.with_suffix(".part")
    with temporary.open("wb") as out:
        for expert in range(layout.experts):
            data = bytearray(record)
            for extent in layout.extents(expert):
                at = sum(part.nbytes for part in layout.parts[: extent.part]) + extent.start
                data[at : at + extent.nbytes] = _read(extent.file, extent.offset, extent.nbytes)
            out.write(data)
            sha.update(data)
            yield layout.expert_nbytes
        out.flush()
        os.fsync(out.fileno())
    parts = [
        {"matrix": p.matrix, "suffix": p.suffix, "dtype": p.dtype, "rows": p.shape[0], "columns": p.shape[1]}
        for p in layout.parts
    ]
    entry = {
        "name": layout.name,
        "file": file.name,
        "experts": layout.experts,
        "record": record,
        "sha256": sha.hexdigest(),
        "parts": parts,
    }
    _write_whole(note, json.dumps(entry).encode())
    temporary.replace(file)
    _sync_directory(file.parent)


def _read(file: Path, offset: int, nbytes: int) -> bytes:
    with file.open("rb") as opened:
        opened.seek(offset)
        data = opened.read(nbytes)
    if len(data) != nbytes:
        raise CheckpointError(f"{file.name} is truncated: {len(data)} of {nbytes} bytes at {offset}")
    return data


def _write_whole(path: Path, data: bytes) -> None:
    """All of it or nothing, whenever the machine stops."""
    temporary = path.with_name(path.name + ".tmp")
    with temporary.open("wb") as out:
        out.write(data)
        out.flush()
        os.fsync(out.fileno())
    temporary.replace(path)
    _sync_directory(path.parent)


def _sync_directory(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _origin(layouts: Sequence[LayerLayout]) -> dict[str, Any]:
    """What a half-written store must have come from to be continued."""
    files = sorted({file for layout in layouts for file in layout.files})
    return {
        "version": VERSION,
        "layers": [[layout.name, layout.experts, layout.expert_nbytes] for layout in layouts],
        "files": [[file.name, file.stat().st_size, file.stat().st_mtime_ns] for file in files],
    }


def _padded(nbytes: int) -> int:
    return -(-nbytes // PAGE) * PAGE
