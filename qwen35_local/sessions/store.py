"""The directory of sessions: `NAME.json` says what was said, `NAME.state` is the model's state after it."""

import contextlib
import fcntl
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ..errors import ModelNotFound, SessionError, StorageError, UsageError
from .file import StateFile
from .talk import read_talk

NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,63}")


@dataclass(frozen=True, slots=True)
class Stored:
    """One session as it lies there. `problem` says why it cannot be gone on with, if so; `saved` is a time in seconds
    since 1970, `tokens` what the state has read, `nbytes` of both files."""

    name: str
    nbytes: int
    saved: float
    turns: int = 0
    tokens: int = 0
    model: str = ""
    problem: str = ""


class Store:
    """Sessions by name below `directory`, which need not be there yet."""

    def __init__(self, directory: Path):
        self.directory = directory

    def talk(self, name: str) -> Path:
        return self.directory / f"{checked(name)}.json"

    def state(self, name: str) -> Path:
        return self.directory / f"{checked(name)}.state"

    def __iter__(self) -> Iterator[Stored]:
        """All of them, the newest first."""
        names = {path.stem for end in ("json", "state") for path in self.directory.glob(f"*.{end}")}
        found = [self.find(name) for name in names if NAME.fullmatch(name)]
        return iter(sorted(found, key=lambda stored: stored.saved, reverse=True))

    def find(self, name: str) -> Stored:
        """One session. Raises ModelNotFound if there is none; a damaged one is found and says so."""
        files = [path for path in (self.talk(name), self.state(name)) if path.is_file()]
        if not files:
            raise ModelNotFound(
                f"no session {name!r} in {self.directory}: 'qwen35 sessions list' shows those there are"
            )
        status = [path.stat() for path in files]
        nbytes, saved = sum(s.st_size for s in status), max(s.st_mtime for s in status)
        turns, tokens, model, problem = 0, 0, "", ""
        try:
            turns = len(read_talk(self.talk(name)))
            if self.state(name).is_file():
                header = StateFile.open(self.state(name)).header
                model = str(header.get("model", ""))
                tokens = max((len(line.get("ids", ())) for line in header.get("timelines", ())), default=0)
        except SessionError as error:
            problem = str(error)
        return Stored(name, nbytes, saved, turns, tokens, model, problem)

    def remove(self, name: str, state_only: bool = False) -> int:
        """Delete a session, or its state alone; how many bytes that freed. Raises StorageError."""
        stored = self.find(name)
        with self.lock(name):
            paths = [self.state(name)] if state_only else [self.state(name), self.talk(name)]
            freed = 0
            for path in paths:
                try:
                    freed += path.stat().st_size if path.exists() else 0
                    path.unlink(missing_ok=True)
                except OSError as error:
                    raise StorageError(f"{path} cannot be removed: {error.strerror}") from error
        if not state_only:
            self._lock(name).unlink(missing_ok=True)
        return min(freed, stored.nbytes)

    @contextlib.contextmanager
    def lock(self, name: str) -> Iterator[None]:
        """While inside, no other process can be; SessionError at once if one is. Leftovers of killed ones go."""
        path = self._lock(name)
        try:
            self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise StorageError(f"{path} cannot be made: {error.strerror}") from error
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise SessionError(f"session {name!r} is in use by another process") from None
            for left in self.directory.glob(f".{name}.*.*.part"):
                left.unlink(missing_ok=True)
            yield
        finally:
            os.close(handle)

    def _lock(self, name: str) -> Path:
        return self.directory / f".{checked(name)}.lock"


def checked(name: str) -> str:
    """`name`, if a session can be called that."""
    if not NAME.fullmatch(name):
        raise UsageError(f"a session's name is 1 to 64 letters, digits, '_' or '-', not {name!r}", "session")
    return name
