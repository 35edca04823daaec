"""What every local backend does the same way: template, tokens, the token loop. A backend adds a `Session`."""

from collections.abc import Generator, Iterator, Sequence
from typing import Any

from ..chat.prompt import prompt_ids
from ..chat.tokenizer import Tokenizer
from ..engine import ChatRequest, Engine, ImagePart, Reuse, Session, VideoPart
from ..errors import MediaError, UsageError
from ..events import Event
from ..generate import generate


def common_prefix(a: Sequence[int], b: Sequence[int]) -> int:
    """How many leading tokens two lists share."""
    return next((at for at, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


class LocalEngine(Engine):
    """An engine that keeps its sessions from answer to answer, so that a turn reads only what is new in it.

    Up to `parallel` answers can be under way; each has a session of its own, opened when it is first needed.
    """

    def __init__(self, tokenizer: Tokenizer, session: Session):
        self.tokenizer = tokenizer
        self._sessions = [session]
        self._busy: list[Session] = []
        self._closed = False

    def stream(self, request: ChatRequest) -> Iterator[Event]:
        """Answer; refuses bad requests at once, not at the first event."""
        self._check_open()
        media = (part for message in request.messages if isinstance(message.content, tuple) for part in message.content)
        if any(isinstance(part, ImagePart | VideoPart) for part in media):
            raise MediaError(f"{self.info.model} cannot see: this build of the engine takes text only")
        turn = _Turn(self)
        return turn.over(generate(turn, self.prompt(request), request, self.tokenizer, self.info.context))

    def prompt(self, request: ChatRequest) -> list[int]:
        """Token ids of the rendered conversation, up to where the answer begins."""
        return prompt_ids(request, self.tokenizer)

    def borrow(self, ids: Sequence[int]) -> Session:
        """The free session that knows most of `ids`; a new one if all are busy. Give it back with `give_back`."""
        self._check_open()
        if len(self._busy) >= self.parallel:
            raise UsageError("the engine is answering another request: finish or close that iterator first")
        free = [session for session in self._sessions if session not in self._busy]
        # A session that knows nothing of the prompt keeps what it has, as long as there is room for another.
        best = max(free, key=lambda session: session.shared(ids), default=None)
        another = len(self._sessions) < self.parallel and self.has_room()
        if best is None or (best.shared(ids) == 0 < best.tokens and another):
            best = self.open_session()
            self._sessions.append(best)
        self._busy.append(best)
        return best

    def has_room(self) -> bool:
        """Whether memory allows another session, where a session takes much of it at once."""
        return True

    def give_back(self, session: Session) -> None:
        self._busy.remove(session)

    def tokenize(self, text: str, special: bool = False) -> list[int]:
        return self.tokenizer.encode(text, special)

    def detokenize(self, ids: Sequence[int]) -> str:
        return self.tokenizer.decode(ids)

    def close(self) -> None:
        if not self._closed:
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
        self._session: Session | None = None

    def over(self, events: Iterator[Event]) -> Generator[Event, None, None]:
        try:
            yield from events
        finally:
            if self._session is not None:
                self._engine.give_back(self._session)

    def sync(self, ids: Sequence[int]) -> Generator[tuple[int, int], None, Reuse]:
        session = self._session = self._engine.borrow(ids)
        # From here on the token loop talks to the session itself.
        self.logits, self.advance = session.logits, session.advance
        self.stats = getattr(session, "stats", dict)
        return session.sync(ids)

    def logits(self) -> Any:
        raise AssertionError("sync comes first")

    def advance(self, token: int) -> None:
        raise AssertionError("sync comes first")

    def shared(self, ids: Sequence[int]) -> int:
        return 0

    @property
    def tokens(self) -> int:
        return 0

    def close(self) -> None: ...
