"""What the files of a directory should hash to, whoever brought them: our manifest, the Hub's cache, `hf download`."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from .manifest import NAME, Entry, Manifest

NOTES = Path(".cache/huggingface/download")  # beside the files of `hf download --local-dir`
SUFFIX = ".metadata"
HEX = {40: "blob", 64: "sha256"}  # digits of a hash -> its kind


@dataclass(frozen=True, slots=True)
class Known:
    """Hashes by file, and who says so."""

    files: Mapping[str, Entry]
    origin: str


def known_hashes(directory: Path) -> Known | None:
    """Of everything in a directory; None where nobody left word. Raises CheckpointError for a damaged manifest."""
    if (manifest := Manifest.read(directory)) is not None:
        return Known(manifest.files, NAME)
    notes = directory / NOTES
    noted = [note.relative_to(notes).as_posix().removesuffix(SUFFIX) for note in notes.rglob("*" + SUFFIX)]
    return _told(directory, noted or [file.relative_to(directory).as_posix() for file in directory.rglob("*")])


def known_hashes_of(files: Sequence[Path]) -> tuple[Path, Known | None]:
    """The same for some files alone (all in one directory), with the directory that their names are relative to: a
    repository may keep them one level down."""
    for directory in (files[0].parent, files[0].parent.parent):
        names = [file.relative_to(directory).as_posix() for file in files]
        if (manifest := Manifest.read(directory)) is not None and set(names) <= set(manifest.files):
            return directory, Known({name: manifest.files[name] for name in names}, NAME)
        if (told := _told(directory, names)) is not None:
            return directory, told
    return files[0].parent, None


def _told(directory: Path, names: Iterable[str]) -> Known | None:
    """By the Hub's tools, whose word is beside each file."""
    cached, noted = {}, {}
    for name in names:
        if entry := _cached(directory / name):
            cached[name] = entry
        elif entry := _noted(directory, name):
            noted[name] = entry
    return Known(cached | noted, "the Hub's cache" if cached else "hf download") if cached or noted else None


def _cached(file: Path) -> Entry | None:
    """In the cache a file is a link to a blob, whose name is the file's hash."""
    target = file.readlink() if file.is_symlink() else None
    return _entry(target.name, file) if target is not None and target.parent.name == "blobs" else None


def _noted(directory: Path, name: str) -> Entry | None:
    """The second line of the note that belongs to a file is its hash."""
    try:
        lines = (directory / NOTES / (name + SUFFIX)).read_text(errors="replace").splitlines()
    except OSError:
        return None
    return _entry(lines[1].strip(), directory / name) if len(lines) > 1 else None


def _entry(digest: str, file: Path) -> Entry | None:
    """Neither tells the size: the file's own is taken, and a wrong one shows in the hash."""
    kind = HEX.get(len(digest))
    if kind is None or not re.fullmatch(r"[0-9a-f]+", digest):
        return None
    return Entry(file.stat().st_size if file.exists() else 0, kind, digest)
