"""What the files of a directory should hash to, whoever brought them: our manifest, the Hub's cache, `hf download`."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from .manifest import NAME, Entry, Manifest

NOTES = Path(".cache/huggingface/download")  # beside the files of `hf download --local-dir`
HEX = {40: "blob", 64: "sha256"}  # digits of a hash -> its kind


@dataclass(frozen=True, slots=True)
class Known:
    """Hashes by file, and who says so."""

    files: Mapping[str, Entry]
    origin: str


def known_hashes(directory: Path) -> Known | None:
    """None where nobody left word. Raises CheckpointError for a damaged manifest."""
    if (manifest := Manifest.read(directory)) is not None:
        return Known(manifest.files, NAME)
    for found, origin in ((_cached(directory), "the Hub's cache"), (_noted(directory), "hf download")):
        if found:
            return Known(found, origin)
    return None


def known_hashes_of(files: Sequence[Path]) -> tuple[Path, Known | None]:
    """The same for some files alone (all in one directory), with the directory that their names are relative to; a
    repository may keep them one level down."""
    for directory in (files[0].parent, files[0].parent.parent):
        if (known := known_hashes(directory)) is not None:
            names = {file.relative_to(directory).as_posix() for file in files}
            if kept := {name: entry for name, entry in known.files.items() if name in names}:
                return directory, Known(kept, known.origin)
    return files[0].parent, None


def _cached(directory: Path) -> dict[str, Entry]:
    """In the cache a file is a link to a blob, whose name is the file's hash."""
    found = {}
    for file in directory.rglob("*"):
        if file.is_symlink():
            target = file.readlink()
            if target.parent.name == "blobs" and (entry := _entry(target.name, file)):
                found[file.relative_to(directory).as_posix()] = entry
    return found


def _noted(directory: Path) -> dict[str, Entry]:
    """A note's second line is the hash; a note whose file is gone tells of a file that is missing."""
    found = {}
    for note in (directory / NOTES).rglob("*.metadata"):
        name = note.relative_to(directory / NOTES).as_posix().removesuffix(".metadata")
        lines = note.read_text(errors="replace").splitlines()
        if len(lines) > 1 and (entry := _entry(lines[1].strip(), directory / name)):
            found[name] = entry
    return found


def _entry(digest: str, file: Path) -> Entry | None:
    """Neither place tells the size: the file's own is taken, and a wrong one shows in the hash."""
    kind = HEX.get(len(digest))
    if kind is None or not re.fullmatch(r"[0-9a-f]+", digest):
        return None
    return Entry(file.stat().st_size if file.exists() else 0, kind, digest)
