"""What every local backend does the same way: template, tokens, the token loop. A backend adds a `Session`."""

from abc import abstractmethod
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

from ..chat.prompt import price, prompt_of
from ..chat.said import Said
from ..chat.tokenizer import Tokenizer
from ..config import Settings
from ..engine import ChatRequest, Completion, Engine, ImagePart, Prompt, Reuse, Session, VideoPart, gather
from ..errors import UsageError
from ..events import Done, Event, Progress
from ..generate import generate
from ..sessions.file import Array, Entry
from ..sessions.store import Store
from .kept import Identity, KeptSession
from .prefix import common_prefix
from .reasons import why


class Memory(Protocol):
    """Where a saved state is read to: arrays by name, as the backend wants them."""

    arrays: dict[str, Any]

    def room(self, entry: Entry) -> memoryview: ...


class LocalSession(Session, Protocol):
    """A session whose state can be saved."""

    def dump(self) -> tuple[dict[str, Any], Iterator[Array]]:
        """(what to know of the state, in JSON's terms, its arrays); good until the next call."""
        ...

    def revive(self, ids: Sequence[int], meta: Mapping[str, Any], arrays: Mapping[str, Any]) -> None:
        """Be the state of `ids` that `dump` told of. Raises SessionError."""
        ...


class LocalEngine(Engine):
    """An engine that keeps its sessions from answer to answer, so that a turn reads only what is new in it.

    Up to `parallel` answers can be under way; each has a session of its own, opened when it is first needed. Up to
    `kept` conversations, or branches of one, are remembered while there is room.
    """

    kept = 1

    def __init__(self, tokenizer: Tokenizer, session: LocalSession):
        self.tokenizer = tokenizer
        self.said = Said()
        self._sessions = [session]
        self._busy: list[LocalSession] = []
        self._kept: list[KeptSession] = []
        self._closed = False

    def stream(self, request: ChatRequest) -> Iterator[Event]:
        """Answer; refuses bad requests at once, not at the first event."""
        self._check_open()
        turn, ids = _Turn(self), self.prompt(request)
        events = generate(turn, ids, request, self.tokenizer, self.info.context, turn.heard)
        # An answer that was begun for the model is sent back as one with its beginning: nothing to compare.
        return turn.over(events, None if request.raw or request.prefill else ids)

    def prompt(self, request: ChatRequest) -> Prompt:
        """The rendered conversation, up to where the answer begins."""
        return prompt_of(request, self.tokenizer, self.said, self.look)

    def price(self, part: ImagePart | VideoPart) -> int:
        return price(part, self.tokenizer, self.look)

    def borrow(self, ids: Sequence[int]) -> LocalSession:
        """The free session that knows most of `ids`; a new one if all are busy. Give it back with `give_back`."""
        self._check_open()
        if len(self._busy) >= self.parallel:
            raise UsageError("the engine is answering another request: finish or close that iterator first")
        free = [session for session in self._sessions if session not in self._busy]
        best = max(free, key=lambda session: session.shared(ids), default=None)
        if best is None:
            best = self.open_session()
            self._sessions.append(best)
        elif 2 * best.shared(ids) < best.tokens:  # most of what it knows would be lost
            best = self._beside(best, ids, free)
        self._busy.append(best)
        return best

    def _beside(self, best: LocalSession, ids: Sequence[int], free: Sequence[LocalSession]) -> LocalSession:
        """A session for another conversation than that of `best`, or another branch of it: the least recently used one
        makes way if there are enough, or no room for one more."""
        if len(self._sessions) < max(self.parallel, self.kept) and self.has_room():
            branch = self.branch(best, ids)
            self._sessions.append(branch)
            return branch
        oldest = free[0]
        if oldest is best:
            return best
        self._sessions.remove(oldest)
        oldest.close()
        branch = self.branch(best, ids)
        self._sessions.append(branch)
        return branch

    def nearest(self, ids: Sequence[int]) -> tuple[Sequence[int], int]:
        """(the tokens of the session that agrees with the most of `ids`, how many agree)."""
        known = [list(session.ids) for session in self._sessions]
        return max(((tokens, common_prefix(tokens, ids)) for tokens in known), key=lambda found: found[1])

    def branch(self, session: LocalSession, ids: Sequence[int]) -> LocalSession:
        """A session that has in common with `ids` what `session` has, if the backend can copy states."""
        return self.open_session()

    def has_room(self) -> bool:
        """Whether memory allows another session, where a session takes much of it at once."""
        return True

    def give_back(self, session: LocalSession) -> None:
        self._busy.remove(session)
        if not self._closed:  # an answer that nobody reads may end after its engine
            self._sessions.remove(session)
            self._sessions.append(session)  # the most recently used one comes last

    @property
    def sessions(self) -> Sequence[LocalSession]:
        """Every timeline that is remembered, the most recently used one last."""
        return self._sessions

    @property
    def turn_token(self) -> int:
        """With which messages begin."""
        return self.tokenizer.special["<|im_start|>"]

    def keep(self, name: str, directory: Path | None = None, compress: bool = False) -> KeptSession:
        self._check_open()
        store = Store(directory or Settings.resolve().data / "sessions")
        kept = KeptSession(self, store, name, compress)
        self._kept.append(kept)
        return kept

    def identity(self) -> Identity:
        """What a state of this engine belongs to."""
        raise UsageError(f"the {self.info.backend} backend cannot save states", "session")

    def memory(self) -> Memory:
        """Room for a saved state."""
        raise UsageError(f"the {self.info.backend} backend cannot save states", "session")

    def revive(self, ids: Sequence[int], meta: Mapping[str, Any], arrays: Mapping[str, Any]) -> None:
        """Have a session again that was saved; the first one makes way if nothing is in it. What does not fit beside
        the others is left out."""
        if self._sessions[0].tokens and not self.has_room():
            return
        session = self._sessions.pop(0) if not self._sessions[0].tokens else self.open_session()
        self._sessions.append(session)
        session.revive(ids, meta, arrays)

    @abstractmethod
    def open_session(self) -> LocalSession: ...

    def tokenize(self, text: str, special: bool = False) -> list[int]:
        return self.tokenizer.encode(text, special)

    def detokenize(self, ids: Sequence[int]) -> str:
        return self.tokenizer.decode(ids)

    def close(self) -> None:
        if not self._closed:
            try:
                for kept in self._kept:
                    kept.close()
            finally:
                self._closed = True
                for session in self._sessions:
                    session.close()

    def _check_open(self) -> None:
        if self._closed:
            raise UsageError("the engine is closed: open it again")


class _Turn:
    """A session that is borrowed when an answer begins and given back when it ends, however it ends."""

    def __init__(self, engine: LocalEngine):
        self._engine = engine
        self._session: LocalSession | None = None
        self._said: Sequence[int] | None = None

    def heard(self, ids: Sequence[int]) -> None:
        self._said = ids

    def over(self, events: Iterator[Event], prompt: Prompt | None) -> Generator[Event, None, None]:
        """The events; the answer's tokens are remembered if it follows a `prompt` that may come again."""
        seen: list[Event] = []
        try:
            for event in events:
                if not isinstance(event, Progress):
                    seen.append(event)
                if isinstance(event, Done) and prompt is not None and self._said is not None:
                    answer: Completion = gather(seen)
                    turn = self._engine.turn_token
                    self._engine.said.keep(prompt.identity, self._said, answer.message, turn)
                yield event
        finally:
            if (close := getattr(events, "close", None)) is not None:
                close()
            if self._session is not None:
                self._engine.give_back(self._session)

    def sync(self, ids: Sequence[int]) -> Generator[tuple[int, int], None, Reuse]:
        identity = Prompt.of(ids).identity
        nearest, common = self._engine.nearest(identity)
        session = self._session = self._engine.borrow(ids)
        # From here on the token loop talks to the session itself.
        self.logits, self.advance = session.logits, session.advance
        self.stats = getattr(session, "stats", dict)
        reuse = yield from session.sync(ids)
        if not common or common == len(nearest):  # nothing to compare with, or it was gone on with
            return reuse
        return replace(reuse, differs=common, reason=why(nearest, identity, common, self._engine.tokenizer))

    def logits(self) -> Any:
        raise AssertionError("sync comes first")

    def advance(self, token: int) -> None:
        raise AssertionError("sync comes first")

    def shared(self, ids: Sequence[int]) -> int:
        return 0

    @property
    def ids(self) -> Sequence[int]:
        return ()

    @property
    def tokens(self) -> int:
        return 0

    def close(self) -> None: ...
