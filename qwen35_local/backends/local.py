"""What every local backend does the same way: template, tokens, the token loop. A backend adds a `Session`."""

from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager

from ..chat.template import render
from ..chat.tokenizer import Tokenizer
from ..engine import ChatRequest, Engine, ImagePart, Session, VideoPart
from ..errors import MediaError, UsageError
from ..events import Event
from ..generate import generate


class LocalEngine(Engine):
    """An engine over one `Session`, which it keeps from answer to answer: a turn reads only what is new in it."""

    def __init__(self, tokenizer: Tokenizer, session: Session):
        self.tokenizer = tokenizer
        self._session = session
        self._closed = False
        self._busy = False

    def stream(self, request: ChatRequest) -> Iterator[Event]:
        """Answer; refuses bad requests at once, not at the first event."""
        self._check_open()
        media = (part for message in request.messages if isinstance(message.content, tuple) for part in message.content)
        if any(isinstance(part, ImagePart | VideoPart) for part in media):
            raise MediaError(f"{self.info.model} cannot see: this build of the engine takes text only")
        prompt = self.prompt(request)
        return self._one_at_a_time(generate(self._session, prompt, request, self.tokenizer, self.info.context))

    def prompt(self, request: ChatRequest) -> list[int]:
        """Token ids of the rendered conversation, up to where the answer begins."""
        return self.tokenizer.encode_segments(render(request.messages, request.tools, request.thinking))

    def _one_at_a_time(self, events: Iterator[Event]) -> Generator[Event, None, None]:
        with self._alone():
            yield from events

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """The state is one timeline: two answers at once would write into each other."""
        self._check_open()
        if self._busy:
            raise UsageError("the engine is answering another request: finish or close that iterator first")
        self._busy = True
        try:
            yield
        finally:
            self._busy = False

    def tokenize(self, text: str, special: bool = False) -> list[int]:
        return self.tokenizer.encode(text, special)

    def detokenize(self, ids: Sequence[int]) -> str:
        return self.tokenizer.decode(ids)

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._session.close()

    def _check_open(self) -> None:
        if self._closed:
            raise UsageError("the engine is closed: open it again")
