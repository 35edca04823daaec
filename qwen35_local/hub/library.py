"""The models on this machine: those in our directory, finished or not, and ours in the Hub cache."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ..errors import ModelNotFound, Qwen35Error
from .manifest import Manifest
from .place import SUFFIX, occupied

State = Literal["whole", "unfinished", "in the Hub cache", "half removed"]
DOOMED = ".removed"  # a directory that is going, under its name with a dot before and this behind


@dataclass(frozen=True, slots=True)
class Stored:
    """`nbytes` on the disk; `source` is its repository or directory, where that is known."""

    name: str
    path: Path
    state: State
    nbytes: int
    source: str


def stored_models(home: Path) -> list[Stored]:
    found = [*_ours(home), *_cached()]
    return sorted(found, key=lambda model: (model.state, model.name))


def _ours(home: Path) -> Iterator[Stored]:
    for path in home.iterdir() if home.is_dir() else ():
        if not path.is_dir():
            continue
        if path.name.startswith("."):
            if path.name.endswith(DOOMED):
                yield Stored(path.name, path, "half removed", occupied(path), "")
        elif path.name.endswith(SUFFIX):
            yield Stored(path.name.removesuffix(SUFFIX), path, "unfinished", occupied(path), "")
        elif any(path.rglob("*.safetensors")) or any(path.rglob("*.gguf")):
            try:
                manifest = Manifest.read(path)
            except Qwen35Error:
                manifest = None
            source = manifest.source.get("repo", manifest.source.get("directory", "")) if manifest else ""
            yield Stored(path.name, path, "whole", occupied(path), source)


def _cached() -> Iterator[Stored]:
    """Repositories of the architecture in the Hub cache, by their config.json."""
    from huggingface_hub import constants

    root = Path(constants.HF_HUB_CACHE)
    for entry in root.glob("models--*") if root.is_dir() else ():
        reference = entry / "refs" / "main"
        try:
            config = json.loads((entry / "snapshots" / reference.read_text().strip() / "config.json").read_bytes())
            if config.get("model_type", "").startswith("qwen3_5_moe"):
                name = entry.name.removeprefix("models--").replace("--", "/")
                yield Stored(name, entry, "in the Hub cache", occupied(entry), name)
        except (OSError, ValueError, AttributeError):
            continue


def find_stored(home: Path, name: str) -> Stored:
    """A model of `stored_models` by name; an unfinished one too. Raises ModelNotFound with what there is."""
    models = stored_models(home)
    for model in models:
        if name in (model.name, str(model.path)):
            return model
    there = ", ".join(model.name for model in models) or "none"
    raise ModelNotFound(f"no model {name!r} in {home} or the Hub cache; there are: {there}")
