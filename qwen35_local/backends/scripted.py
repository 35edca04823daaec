"""An engine that says what it was told to: the fake of the engine seam, for tests of everything above it.

Everything but the model is real: template, tokenizer, token loop, sampling and splitter.
"""

import time
from collections.abc import Generator, Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from ..chat.prompt import prompt_of
from ..chat.tokenizer import Tokenizer
from ..engine import ChatRequest, Engine, EngineInfo, Prompt, Reuse
from ..errors import UsageError
from ..events import Event
from ..generate import generate

# A reply is text (control tokens are recognised) or token ids; an exception among them is raised when it is reached.
Reply = str | Sequence[str | int | Exception]


class ScriptedSession:
    """A timeline whose next token is that of a script; the end token once the script is over."""

    def __init__(self, tokenizer: Tokenizer, vocab_size: int, chunk: int, delay: float):
        self._end = tokenizer.special["<|im_end|>"]
        self._vocab_size = vocab_size
        self._chunk = chunk
        self._delay = delay
        self.script: Sequence[int | Exception] = ()  # the tokens that follow the next `sync`
        self._said = 0
        self.ids: list[int] = []

    def sync(self, ids: Sequence[int]) -> Generator[tuple[int, int], None, Reuse]:
        self._said = 0
        common = self.shared(ids)
        self.ids = list(ids[:common])
        while len(self.ids) < len(ids):
            time.sleep(self._delay)
            self.ids += ids[len(self.ids) : len(self.ids) + self._chunk]
            yield len(self.ids), len(ids)
        return Reuse(common, len(ids))

    def shared(self, ids: Sequence[int]) -> int:
        pairs = zip(self.ids, ids, strict=False)
        return next((at for at, (ours, theirs) in enumerate(pairs) if ours != theirs), min(len(self.ids), len(ids)))

    @property
    def tokens(self) -> int:
        return len(self.ids)

    def logits(self) -> Any:
        """0 for the token of the script and -inf for all others, so that no sampling can miss it."""
        time.sleep(self._delay)
        token = self.script[self._said] if self._said < len(self.script) else self._end
        if isinstance(token, Exception):
            raise token
        logits = np.full(self._vocab_size, -np.inf, np.float32)
        logits[token] = 0
        return logits

    def advance(self, token: int) -> None:
        """A token that the script did not say, of a prompt or forced, leaves the script where it is."""
        self.ids.append(token)
        self._said += self._said < len(self.script) and token == self.script[self._said]

    def close(self) -> None:
        self.ids = []


class ScriptedEngine(Engine):
    """Gives its replies in order, then ends every answer at once. `requests` are those it was asked.

    `delay` (seconds) comes before each token and each `chunk` of prompt tokens.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        replies: Iterable[Reply] = (),
        context: int = 4096,
        chunk: int = 64,
        delay: float = 0.0,
    ):
        self.parallel = 1_000_000  # each answer has a session of its own
        self.info = EngineInfo("scripted", "scripted", context, tokenizer.size)
        self.requests: list[ChatRequest] = []
        self.closed = False
        self._tokenizer = tokenizer
        self._replies = iter(replies)
        self._chunk = chunk
        self._delay = delay
        self._session = self.open_session()

    def stream(self, request: ChatRequest) -> Iterator[Event]:
        if self.closed:
            raise UsageError("the engine is closed: open it again")
        self.requests.append(request)
        reply = next(self._replies, "")
        pieces = [reply] if isinstance(reply, str) else reply
        script: list[int | Exception] = []
        for piece in pieces:
            script += self.tokenize(piece, special=True) if isinstance(piece, str) else [piece]
        session = self.open_session()
        session.ids, session.script = self._session.ids, script
        self._session = session  # each answer has its own timeline, so that several can take turns
        return generate(session, self.prompt(request), request, self._tokenizer, self.info.context)

    def prompt(self, request: ChatRequest) -> Prompt:
        return prompt_of(request, self._tokenizer)

    def open_session(self) -> ScriptedSession:
        return ScriptedSession(self._tokenizer, self.info.vocab_size, self._chunk, self._delay)

    def tokenize(self, text: str, special: bool = False) -> list[int]:
        return self._tokenizer.encode(text, special)

    def detokenize(self, ids: Sequence[int]) -> str:
        return self._tokenizer.decode(ids)

    def close(self) -> None:
        self.closed = True
        self._session.close()
