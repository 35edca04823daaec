"""From what a person types to a model directory: a path, the Hub's cache, or the model that ships with the package."""

from pathlib import Path

from ..config import Settings
from ..errors import ModelNotFound

MINIATURE = Path(__file__).parent.parent / "miniature"


def find_model(name: str | Path) -> Path:
    """The directory of a model: `miniature`, a directory, the name of one that `qwen35 download` made, a Hub cache
    entry, or a repository in the Hub cache."""
    if name == "miniature":
        return MINIATURE
    path = Path(name).expanduser()
    if path.is_dir():
        return _snapshot(path) or path.resolve()
    if (ours := Settings.resolve().models / name).is_dir() and not path.is_absolute():
        return ours
    if path.exists():
        raise ModelNotFound(f"{path} is a file: give the directory that holds config.json and the weights")
    if len(path.parts) == 2 and not path.is_absolute():
        return _cached(str(name))
    raise ModelNotFound(f"no model at {path}: give a directory, a repository in the Hub cache, or 'miniature'")


def _snapshot(path: Path) -> Path | None:
    """The revision that a Hub cache entry (`models--owner--name`) points to, if `path` is one."""
    reference = path / "refs" / "main"
    if not reference.is_file():
        return None
    snapshot = path / "snapshots" / reference.read_text().strip()
    if not snapshot.is_dir():
        raise ModelNotFound(f"{path.name} in the Hub cache is incomplete: download it again")
    return snapshot


def _cached(repository: str) -> Path:
    from huggingface_hub import snapshot_download  # half a second to import, and only needed here
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(repository, local_files_only=True))
    except (LocalEntryNotFoundError, HFValidationError):
        raise ModelNotFound(f"no directory {repository}, and no such repository in the Hub cache") from None
