"""A session by name: what was said in it and the model's state after it, on disk from one process to the next."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from time import perf_counter, time
from typing import TYPE_CHECKING, Any

from ..engine import Message, message_of
from ..errors import SessionError
from ..sessions.file import Array, StateFile, write
from ..sessions.store import Store
from ..sessions.talk import message_json, read_talk, write_talk

if TYPE_CHECKING:
    from .local import LocalEngine

SHARE = 0.05  # of the time that may go into writing states; a turn's text is written always


@dataclass(frozen=True, slots=True)
class Identity:
    """What a saved state belongs to. `terms` are what else changes its numbers, by name."""

    model: str
    fingerprint: str
    terms: Mapping[str, Any]


class KeptSession:
    """Open in one engine of one process. Whoever talks hands over the `messages` after every turn with `remember`."""

    def __init__(self, engine: "LocalEngine", store: Store, name: str, compress: bool = False):
        """Reads what there is. Raises SessionError if it cannot be gone on with; it is left as it is then."""
        self.name, self._engine, self._store, self._compress = name, engine, store, compress
        self._saved: list[tuple[int, ...]] = []
        self._ended = self._took = 0.0
        self._open = ExitStack()
        self._open.enter_context(store.lock(name))
        try:
            self.messages = read_talk(store.talk(name))
            self.resumed = self._load() if store.state(name).exists() else 0
        except BaseException:
            self._open.close()
            raise

    def remember(self, messages: Sequence[Message]) -> None:
        """Write what was said, and the state if that does not take more than its share of the time."""
        self.messages = tuple(messages)
        write_talk(self._store.talk(self.name), self.messages)
        if perf_counter() - self._ended >= self._took / SHARE:
            self.save()

    def save(self) -> int:
        """Write the state, if it has changed; the size of its file in bytes, or 0."""
        sessions = [session for session in self._engine.sessions if session.tokens]
        known = [tuple(session.ids) for session in sessions]
        if not known or known == self._saved:
            return 0
        began = perf_counter()
        dumps = [session.dump() for session in sessions]
        identity = self._engine.identity()
        header = {
            "model": identity.model,
            "fingerprint": identity.fingerprint,
            "terms": dict(identity.terms),
            "saved": time(),
            "timelines": [{"ids": list(ids), **meta} for ids, (meta, _) in zip(known, dumps, strict=True)],
            "said": [
                [key.hex(), message_json(message), list(ids)]
                for key, message, ids in self._engine.said.along(known, self._engine.turn_token)
            ],
        }
        arrays = (
            Array(f"{number}/{array.name}", array.dtype, array.shape, array.data)
            for number, (_, found) in enumerate(dumps)
            for array in found
        )
        size = write(self._store.state(self.name), header, arrays, self._compress)
        self._saved, self._ended = known, perf_counter()
        self._took = self._ended - began
        return size

    def _load(self) -> int:
        """Put the state into the engine; how many tokens it has read."""
        file = StateFile.open(self._store.state(self.name))
        self._check(file)
        memory = self._engine.memory()
        file.read(memory.room)
        try:
            for number, meta in enumerate(file.header["timelines"]):
                prefix = f"{number}/"
                arrays = {
                    name.removeprefix(prefix): array for name, array in memory.arrays.items() if name.startswith(prefix)
                }
                self._engine.revive(meta["ids"], meta, arrays)
                self._saved.append(tuple(meta["ids"]))
            for key, message, ids in file.header["said"]:
                self._engine.said.put(bytes.fromhex(key), message_of(message), ids)
        except (KeyError, TypeError, ValueError) as error:
            raise SessionError(f"{file.path.name} has a header that makes no sense ({error!r})") from error
        return max(map(len, self._saved), default=0)

    def _check(self, file: StateFile) -> None:
        ours, theirs = self._engine.identity(), file.header
        name = f"session {self.name!r}"
        again = "open it with that one, or forget its state with 'qwen35 sessions rm --state'"
        if theirs.get("fingerprint") != ours.fingerprint:
            raise SessionError(
                f"{name} was saved with {theirs.get('model')} (revision {theirs.get('fingerprint')}), and this is "
                f"{ours.model} (revision {ours.fingerprint}): {again}"
            )
        terms = theirs.get("terms") or {}
        for term, value in ours.terms.items():
            if terms.get(term) != value:
                raise SessionError(f"{name} was saved with {term} {terms.get(term)}, and this is {value}: {again}")
        longest = max((len(timeline["ids"]) for timeline in theirs.get("timelines", ())), default=0)
        if longest >= (context := self._engine.info.context):
            raise SessionError(f"{name} has {longest} tokens, and the context is {context}: load a longer one")

    def close(self) -> None:
        """Save what has changed, and let others use the session."""
        with self._open:
            self.save()
