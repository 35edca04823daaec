"""Where a model is put together: DIR.partial, locked, until it is whole; then it becomes DIR in one step."""

import errno
import fcntl
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import StorageError
from .journal import sync_directory
from .manifest import Manifest, replace_text

LOCK, SUFFIX = ".lock", ".partial"
MARGIN = 1 << 30  # bytes left free; a full system disk harms more than this program


def partial_of(target: Path) -> Path:
    return target.with_name(target.name + SUFFIX)


def in_the_way(target: Path) -> StorageError:
    """What is said where the directory to make is there already."""
    return StorageError(f"{target} exists already: remove it first, or choose another place")


def lock(partial: Path) -> int:
    """A file handle that keeps all others out of a directory until it is closed. Raises StorageError with the one who
    is in there, or OSError."""
    handle = os.open(partial / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        holder = os.read(handle, 20).decode(errors="replace").strip() or "unknown"
        os.close(handle)
        model = partial.name.removesuffix(SUFFIX)
        raise StorageError(f"another process (pid {holder}) is already working on {model}") from None
    return handle


class Workplace:
    """The right to build `target`, of one process at a time; the lock goes with the process, however it dies."""

    def __init__(self, target: Path):
        """Raises StorageError if another process has it, the place cannot be written, or `target` is in the way."""
        self.target, self.path = target, partial_of(target)
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock = lock(self.path)
        except OSError as error:
            raise StorageError(f"{target.parent} cannot be written ({error.strerror}): choose another place") from error
        if target.exists():
            self.close()
            shutil.rmtree(self.path)
            raise in_the_way(target)
        os.ftruncate(self._lock, 0)
        os.pwrite(self._lock, str(os.getpid()).encode(), 0)

    def claim(self, name: str, state: Mapping[str, str]) -> None:
        """Work of an earlier try counts only if it was of the same `state`, kept in the file `name`; else it goes."""
        path = self.path / name
        try:
            if json.loads(path.read_bytes()) == dict(state):
                return
        except (OSError, ValueError):
            pass
        try:
            for old in self.path.iterdir():
                if old.name != LOCK:
                    shutil.rmtree(old) if old.is_dir() else old.unlink()
            replace_text(path, json.dumps(dict(state)))
        except OSError as error:
            raise StorageError(f"{self.path} cannot be written ({error.strerror}): choose another place") from error

    def publish(self, manifest: Manifest, leftovers: tuple[str, ...]) -> None:
        """Make `target` of what is here. The manifest goes in last, files of the work itself go out."""
        try:
            manifest.write(self.path)
            (self.path / LOCK).unlink(missing_ok=True)
            sync_directory(self.path)
            self.path.replace(self.target)
            sync_directory(self.target.parent)
            for name in leftovers:  # last: a step that fails must find them again
                extra = self.target / name
                shutil.rmtree(extra) if extra.is_dir() else extra.unlink(missing_ok=True)
        except OSError as error:
            raise StorageError(
                f"{self.path} is whole but cannot become {self.target.name}: {error.strerror}; run the same line again"
            ) from error

    def close(self) -> None:
        os.close(self._lock)

    def __enter__(self) -> "Workplace":
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()


def free_space(path: Path) -> int:
    """Bytes free on the disk that `path` is or will be on."""
    while not path.exists() and path != path.parent:
        path = path.parent
    return shutil.disk_usage(path).free


def occupied(path: Path) -> int:
    """Bytes that a directory's files take on the disk; holes of sparse files and what links lead to are not counted."""
    return sum(file.lstat().st_blocks * 512 for file in path.rglob("*") if file.is_file() and not file.is_symlink())


class on_disk:
    """Turns the file system's errors into a sentence."""

    def __init__(self, path: Path):
        self._path = path

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: object) -> None:
        if isinstance(error, OSError):
            raise StorageError(storage_reason(error, self._path)) from error


def storage_reason(error: OSError, path: Path) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return (
            f"the disk of {path.parent} is full: what is there already is kept; make room and run the same line again"
        )
    if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
        return f"{path.parent} cannot be written ({error.strerror}): choose another place"
    return f"{path} cannot be written: {error.strerror or error}"
