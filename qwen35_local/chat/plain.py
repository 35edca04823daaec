"""Generated tokens -> text as it is, for prompts without a chat format."""

from collections.abc import Sequence

from ..events import Event, Text, TokenLogprob
from .channel import Channel
from .tokenizer import Detokenizer, Tokenizer


class PlainText:
    """A `Splitter` that splits nothing: every token is text, up to a stop string."""

    thinking = ended = False
    reasoning_tokens = tool_calls = 0

    def __init__(self, tokenizer: Tokenizer, stops: Sequence[str] = ()):
        self._tokenizer = tokenizer
        self._characters = Detokenizer()
        self._text = Channel(Text, stops, exact=True)

    @property
    def stopped(self) -> str | None:
        return self._text.stopped

    def feed(self, token: int, logprob: TokenLogprob | None = None) -> list[Event]:
        text = self._characters.feed(self._tokenizer.token_bytes(token))
        return [*self._text.push(text, () if logprob is None else (logprob,))]

    def finish(self, cut: bool = False) -> list[Event]:
        return [*self._text.push(self._characters.finish()), *self._text.flush()]
