"""Generated tokens -> reasoning, text and tool calls, as they come.

Structure is decided by token id: a model that *writes about* `</think>` in plain tokens closes nothing. Where ids do
not decide yet (a call inside thinking, a missing tag, a tag inside an argument), text is held back until they do.
Nothing is lost: what turns out not to be a call is shown as text.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ..events import Event, Reasoning, Text, TokenLogprob, ToolCall
from .channel import Channel, Piece
from .tokenizer import Detokenizer, Tokenizer
from .tools import Schemas, new_ids, parse_calls, schemas_of

OPEN, CLOSE = "<tool_call>", "</tool_call>"
STRUCTURE = ("<think>", "</think>", OPEN, CLOSE)
# After these the model would speak for someone else.
OTHER_SPEAKERS = ("<|im_start|>", "<tool_response>")


@dataclass(slots=True)
class _Call:
    """A call being written. `pieces` are everything since its opening tag, to give back if it is no call."""

    pieces: list[Piece]
    schemas: Schemas
    body: str = ""
    guessed: bool = False  # no opening tag
    nested: int = 0  # calls opened inside its arguments
    doubtful_end: int | None = None  # where in `body` a closing tag stands that may belong to an argument
    calls: list[ToolCall] = field(default_factory=list)

    def add(self, text: str, logprobs: Sequence[TokenLogprob] = ()) -> None:
        self.pieces.append((text, tuple(logprobs)))
        self.body += text

    @property
    def plausible(self) -> bool:
        head = self.body[:100].lstrip()[: len("<function=")]
        return "<function=".startswith(head) or head.startswith("{")

    def complete(self) -> bool:
        """Whether it is whole but for `</function>`, with every value closed."""
        self.calls = parse_calls(self.body, self.schemas) or parse_calls(self.body + "</function>", self.schemas)
        return bool(self.calls)

    def complete_at_doubtful_end(self) -> bool:
        """Whether a closing tag that was taken for part of an argument was the end after all."""
        if self.doubtful_end is not None and self.body[self.doubtful_end :].strip() == CLOSE:
            self.calls = parse_calls(self.body[: self.doubtful_end], self.schemas, whole=False)
        return bool(self.calls)

    def complete_at_end(self, cut: bool) -> bool:
        """Whether it is a call if the answer ends here. One that was cut off must be whole: half a value is none."""
        without_tag = self.body.rstrip().removesuffix(CLOSE)
        self.calls = parse_calls(self.body, self.schemas) or parse_calls(without_tag, self.schemas)
        if self.calls or cut or self.guessed or self.complete_at_doubtful_end():
            return bool(self.calls)
        if self.doubtful_end is None:
            self.calls = parse_calls(self.body, self.schemas, whole=False)
        return bool(self.calls)


class Splitter:
    """Feed it each generated token (not the one that ends the answer), then `finish`.

    It starts inside thinking if the prompt ended there. `stops` end the answer, not thinking or calls. `stopped` is the
    stop string that matched; `ended` says that what follows is no part of the answer. Ids of calls come from `ids`.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        thinking: bool,
        tools: Iterable[Mapping[str, Any]] = (),
        stops: Sequence[str] = (),
        ids: Iterator[str] | None = None,
    ):
        self._tokenizer = tokenizer
        self._schemas = schemas_of(tools)
        self._ids = ids or new_ids(())
        self._names = {tokenizer.special[name]: name for name in (*STRUCTURE, *OTHER_SPEAKERS)}
        self._characters = Detokenizer()
        self._thought = Channel(Reasoning)
        self._answer = Channel(Text, stops, [f"<function={name}>" for name in self._schemas])
        self._channel = self._thought if thinking else self._answer
        self._call: _Call | None = None
        self._drafts: list[_Call] = []  # whole calls inside thinking: real only if nothing but them follows
        self._gave_back = False
        self.reasoning_tokens = 0  # the closing tag included
        self.tool_calls = 0
        self.ended = False

    @property
    def thinking(self) -> bool:
        """Whether the next token belongs to thinking."""
        return self._channel is self._thought

    @property
    def stopped(self) -> str | None:
        return self._answer.stopped

    def feed(self, token: int, logprob: TokenLogprob | None = None) -> list[Event]:
        """What this token lets us say; a logprob goes out with the event that first shows its token's text."""
        self.reasoning_tokens += self._channel is self._thought
        logprobs = () if logprob is None else (logprob,)
        if (name := self._names.get(token)) is None:
            return self._write(self._characters.feed(self._tokenizer.token_bytes(token)), logprobs)
        events = self._write(rest) if (rest := self._characters.finish()) else []
        return events + (self._tag_in_call(name, logprobs) if self._call else self._tag(name, logprobs))

    def finish(self, cut: bool = False) -> list[Event]:
        """What is still held, at the end of the answer; `cut` if it ended for want of room."""
        events = self._write(rest) if (rest := self._characters.finish()) else []
        if self._call:
            events += self._close() if self._call.complete_at_end(cut) else self._give_back()
        return events + self._settle_drafts(real=not cut) + self._channel.flush()

    def _write(self, text: str, logprobs: Sequence[TokenLogprob] = ()) -> list[Event]:
        """Plain text, wherever we are."""
        if self._call:
            self._call.add(text, logprobs)
            return [] if self._call.plausible else self._give_back()
        if self._drafts and not text.strip():
            self._drafts[-1].add(text, logprobs)
            return []
        events = self._settle_drafts(real=False)
        if self._channel is self._thought:
            return events + self._thought.push(text, logprobs)
        if self.tool_calls and not self._gave_back:
            # The format has no text after calls, and the next turn could not show it to the model.
            self.ended |= bool(text.strip())
            return events
        events += self._answer.push(text, logprobs)
        if marked := self._answer.take_marked():
            self._call = _Call([marked], self._schemas, marked[0], guessed=True)
        return events

    def _tag(self, name: str, logprobs: Sequence[TokenLogprob]) -> list[Event]:
        """A structural token outside a call."""
        thinking = self._channel is self._thought
        match name:
            case "<tool_call>" if self._schemas:
                self._call = _Call([(OPEN, tuple(logprobs))], self._schemas)
                return []
            case "</think>" if thinking:
                self._channel = self._answer
                return [] if self._drafts else [*self._thought.end()]
            case "<think>" if not self._channel.begun and not self.tool_calls:
                self._channel = self._thought
                return []
            case "</think>" if not self._channel.begun:
                return []
            case "<|im_start|>" | "<tool_response>" if not thinking:
                self.ended = True
                return []
        return self._write(name, logprobs)

    def _tag_in_call(self, name: str, logprobs: Sequence[TokenLogprob]) -> list[Event]:
        """A structural token inside a call: its end, or part of an argument."""
        call = self._call
        assert call
        if name == CLOSE and call.nested:
            call.nested -= 1
        elif name == CLOSE:
            if call.complete():
                call.pieces.append((CLOSE, tuple(logprobs)))
                return self._close()
            if not parse_calls(call.body, self._schemas, whole=False):
                call.add(CLOSE, logprobs)
                return self._give_back()
            call.doubtful_end = len(call.body) if call.doubtful_end is None else call.doubtful_end
        elif name == OPEN or (name == "</think>" and self._channel is self._thought):
            if call.complete_at_doubtful_end() or call.complete():
                return self._close() + self._tag(name, logprobs)
            call.nested += name == OPEN
        call.add(name, logprobs)
        return []

    def _close(self) -> list[Event]:
        """The call is whole: say it, or keep it in mind if we are still thinking."""
        call, self._call = self._call, None
        assert call
        if self._channel is self._thought:
            if all(made.name in self._schemas for made in call.calls):
                self._drafts.append(call)
                return []
            self._call = call
            return self._give_back()
        return [*self._settle_drafts(real=False), *self._answer.end(), *self._say(call.calls)]

    def _say(self, calls: Iterable[ToolCall]) -> list[Event]:
        named = [replace(call, id=next(self._ids)) for call in calls]
        self.tool_calls += len(named)
        return [*named]

    def _give_back(self) -> list[Event]:
        """What looked like a call is none: show it as it was written, and do not guess again."""
        call, self._call = self._call, None
        assert call
        self._answer.forget_markers()
        self._gave_back = True
        events = self._settle_drafts(real=False)
        for text, logprobs in call.pieces:
            # In a call that never closed, the end of thinking was no argument.
            if text == "</think>" and self._channel is self._thought:
                events += self._tag(text, logprobs)
            else:
                events += self._channel.push(text, logprobs)
        return events

    def _settle_drafts(self, real: bool) -> list[Event]:
        """Calls inside thinking: the model's calls if the answer ended with them, else part of its thinking."""
        drafts, self._drafts = self._drafts, []
        if not drafts:
            return []
        if real:
            return [*self._thought.end(), *self._say(call for draft in drafts for call in draft.calls)]
        shown = [event for draft in drafts for piece in draft.pieces for event in self._thought.push(*piece)]
        return [*shown, *(self._thought.end() if self._channel is self._answer else ())]
