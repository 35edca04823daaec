"""qwen35.json: what a model directory must hold, file by file, and where it came from. Written last."""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ..errors import CheckpointError

NAME = "qwen35.json"
FORMAT = 1


@dataclass(frozen=True, slots=True)
class Entry:
    """One file: its size and the hash it must have; `kind` is sha256, or blob for Git's own."""

    size: int
    kind: str
    digest: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """`source` says where the files came from (endpoint, repo, commit), `made` how they were changed."""

    files: Mapping[str, Entry]
    source: Mapping[str, str] = field(default_factory=dict)
    made: Mapping[str, Any] = field(default_factory=dict)

    def write(self, directory: Path) -> None:
        text = json.dumps({"format": FORMAT, **asdict(self)}, indent=1) + "\n"
        replace_text(directory / NAME, text)

    @classmethod
    def read(cls, directory: Path) -> "Manifest | None":
        """None if there is none: a directory that other tools made."""
        try:
            found = json.loads((directory / NAME).read_bytes())
            if found["format"] != FORMAT:
                raise CheckpointError(f"{NAME} has format {found['format']}, this version reads {FORMAT}")
            files = {str(name): Entry(**entry) for name, entry in found["files"].items()}
            if outside := [name for name in files if Path(name).is_absolute() or ".." in Path(name).parts]:
                raise CheckpointError(f"{NAME} names {outside[0]!r}, a file outside the directory")
            return cls(files, found["source"], found["made"])
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
            raise CheckpointError(f"{directory / NAME} is damaged: {error}") from error


def replace_text(path: Path, text: str) -> None:
    """All of the new text or all of the old, whatever happens."""
    fresh = path.with_name(path.name + ".new")
    with fresh.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)
