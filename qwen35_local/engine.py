"""The two nouns, `Engine` and `Session`, and what is said to them.

`Engine` is a loaded model, `Session` is one timeline of tokens. Callers hand over whole prompts and never manage a
cache. Standard library only: the server and the terminal app import this, and no backend.
"""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Protocol, Self

from .errors import MediaError, SamplingError, TemplateError, UsageError
from .events import Done, Event, Reasoning, Text, ToolCall
from .parts import ImagePart, Part, TextPart, VideoPart, part_of

Role = Literal["system", "user", "assistant", "tool"]
ROLES: tuple[Role, ...] = ("system", "user", "assistant", "tool")


@dataclass(frozen=True, slots=True)
class Message:
    """One turn. `reasoning` is the thinking of an assistant turn; a tool result answers `tool_call_id`."""

    role: Role
    content: str | tuple[Part, ...] = ""
    reasoning: str | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None

    def __post_init__(self) -> None:
        if self.role not in ROLES:
            raise TemplateError(f"unknown role {self.role!r}: use one of {', '.join(ROLES)}", "messages")

    @property
    def text(self) -> str:
        """The text parts, joined."""
        if isinstance(self.content, str):
            return self.content
        return "".join(part.text for part in self.content if isinstance(part, TextPart))


@dataclass(frozen=True, slots=True)
class Sampling:
    """How a token is chosen from logits; names and meaning as in mlx-lm and transformers.

    `temperature` 0 is greedy. `top_k` 0, `top_p` 1 and `min_p` 0 mean "off". `presence_penalty` and
    `frequency_penalty` look at generated tokens, `repetition_penalty` at prompt and generated ones. `seed` None draws
    one.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    seed: int | None = None
    logit_bias: Mapping[int, float] | None = None

    def __post_init__(self) -> None:
        ranges: dict[str, tuple[float, float]] = {
            "temperature": (0, 100),
            "top_p": (0, 1),
            "top_k": (0, 2**31 - 1),
            "min_p": (0, 1),
            "presence_penalty": (-2, 2),
            "frequency_penalty": (-2, 2),
            "repetition_penalty": (0, 10),
        }
        for name, (low, high) in ranges.items():
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
                raise SamplingError(f"{name} must be a number from {low:g} to {high:g}, not {value!r}", name)
        if not isinstance(self.top_k, int):
            raise SamplingError(f"top_k must be a whole number, not {self.top_k!r}", "top_k")
        if self.top_p == 0:
            raise SamplingError("top_p must be above 0 (use temperature 0 for greedy decoding)", "top_p")
        if self.repetition_penalty == 0:
            raise SamplingError("repetition_penalty must be above 0 (1 is off)", "repetition_penalty")
        if self.seed is not None and (isinstance(self.seed, bool) or not isinstance(self.seed, int)):
            raise SamplingError(f"seed must be a whole number, not {self.seed!r}", "seed")
        for token, bias in (self.logit_bias or {}).items():
            if not isinstance(token, int) or not isinstance(bias, int | float) or not -100 <= bias <= 100:
                raise SamplingError(
                    f"logit_bias[{token!r}] must map a token id to -100..100, not {bias!r}", "logit_bias"
                )


# Model card of Qwen3.5-397B-A17B (the smaller members of the family have other values).
THINKING = Sampling(temperature=0.6, top_p=0.95, top_k=20)
NON_THINKING = Sampling(temperature=0.7, top_p=0.8, top_k=20, presence_penalty=1.5)
SAMPLING_FIELDS = tuple(field.name for field in fields(Sampling))


@dataclass(frozen=True, slots=True)
class Constraint:
    """What the answer after thinking must look like.

    `shape` and `rule`: text of a JSON schema (as JSON), a regular expression, or a Lark grammar. `calls` are the names
    of tools whose calls must follow their schema; with `must_call` the answer is a call of one of them. `may_call` says
    that a call may stand in place of text of that shape.
    """

    shape: Literal["json", "regex", "lark"] | None = None
    rule: str = ""
    calls: tuple[str, ...] = ()
    must_call: bool = False
    may_call: bool = False


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """One question to an engine: the whole conversation and how to answer it.

    `sampling` None takes the card's defaults for the mode. `max_tokens` None means "up to the context". `stop` strings
    end the answer (not the thinking) and are not part of it. `top_logprobs` None reports no logprobs, 0 only the
    chosen token's. `thinking_budget` ends thinking after so many tokens; `preserve_thinking` shows the model what it
    thought before earlier questions, too: not as it was trained, but nothing is read again. `parallel_tool_calls` False
    ends the answer after its first call. `prefill` is how the answer begins, without thinking; it is not repeated.
    `raw` are the tokens of a whole prompt, in place of messages: what follows them is plain text, and may be nothing
    (`max_tokens` 0).
    `echo` tells them first, with logprobs.
    """

    messages: tuple[Message, ...] = ()
    tools: tuple[Mapping[str, Any], ...] = ()
    thinking: bool = True
    sampling: Sampling | None = None
    max_tokens: int | None = None
    stop: tuple[str, ...] = ()
    top_logprobs: int | None = None
    thinking_budget: int | None = None
    preserve_thinking: bool = False
    parallel_tool_calls: bool = True
    prefill: str = ""
    constraint: Constraint | None = None
    raw: tuple[int, ...] = ()
    echo: bool = False

    def __post_init__(self) -> None:
        if not self.messages and not self.raw:
            raise UsageError("messages is empty: give at least one user message", "messages")
        least = 0 if self.raw else 1
        if self.max_tokens is not None and (not isinstance(self.max_tokens, int) or self.max_tokens < least):
            raise UsageError(
                f"max_tokens must be a whole number of at least {least}, not {self.max_tokens!r}", "max_tokens"
            )
        if self.top_logprobs is not None and not 0 <= self.top_logprobs <= 20:
            raise UsageError(f"top_logprobs must be from 0 to 20, not {self.top_logprobs!r}", "top_logprobs")
        if self.echo and not self.raw:
            raise UsageError("echo is for raw prompts", "echo")
        budget = self.thinking_budget
        if budget is not None and (not isinstance(budget, int) or budget < 0):
            raise UsageError(f"thinking_budget must be a whole number of tokens, not {budget!r}", "thinking_budget")
        if any(not isinstance(stop, str) or not stop for stop in self.stop):
            raise UsageError("stop strings must not be empty", "stop")

    @property
    def effective_sampling(self) -> Sampling:
        return self.sampling or (THINKING if self.thinking else NON_THINKING)

    @classmethod
    def of(cls, messages: "str | Iterable[Message | Mapping[str, Any]]", **options: Any) -> "ChatRequest":
        """A request from a prompt or OpenAI-style dicts, with sampling values among the options.

        Sampling values that are not given keep the card's defaults for the mode.
        """
        if isinstance(messages, str):
            messages = [Message("user", messages)]
        chosen = {name: options.pop(name) for name in SAMPLING_FIELDS if options.get(name) is not None}
        options = {name: value for name, value in options.items() if name not in SAMPLING_FIELDS}
        known = {field.name for field in fields(cls)} - {"messages"}
        if unknown := sorted(set(options) - known):
            raise UsageError(
                f"unknown option {unknown[0]!r}: use one of {', '.join(sorted(known | set(SAMPLING_FIELDS)))}"
            )
        if "stop" in options:
            options["stop"] = (options["stop"],) if isinstance(options["stop"], str) else tuple(options["stop"] or ())
        if "tools" in options:
            options["tools"] = tuple(options["tools"] or ())
        request = cls(tuple(message_of(message) for message in messages), **options)
        return replace(request, sampling=replace(request.effective_sampling, **chosen)) if chosen else request


def message_of(value: "Message | Mapping[str, Any]") -> Message:
    """A `Message` from an OpenAI-style dict; the arguments of its tool calls must be mappings."""
    if isinstance(value, Message):
        return value
    if not isinstance(value, Mapping) or "role" not in value:
        raise TemplateError("each message must be a mapping with a role", "messages")
    content = value.get("content") or ""
    if not isinstance(content, str):
        content = tuple(part_of(part) for part in content)
    return Message(
        role=value["role"],
        content=content,
        reasoning=value.get("reasoning_content"),
        tool_calls=tuple(_tool_call_of(call) for call in value.get("tool_calls") or ()),
        tool_call_id=value.get("tool_call_id"),
    )


def _tool_call_of(call: "ToolCall | Mapping[str, Any]") -> ToolCall:
    if isinstance(call, ToolCall):
        return call
    function = call.get("function", call)
    arguments = function.get("arguments") or {}
    if not isinstance(arguments, Mapping):
        raise TemplateError("tool call arguments must be a mapping (parse the JSON string first)", "messages")
    return ToolCall(function["name"], arguments, call.get("id") or "")


@dataclass(frozen=True, slots=True)
class EngineInfo:
    """What a loaded model is. `context` is in tokens, `memory` in bytes, `budget` the most it may use (0: unknown),
    `yarn` the factor by which its positions are stretched (1: not at all)."""

    model: str
    backend: str
    context: int
    vocab_size: int
    parameters: int = 0
    quantization: str = "none"
    vision: bool = False
    memory: int = 0
    device: str = ""
    budget: int = 0
    yarn: float = 1.0


class Seen(Protocol):
    """A picture or clip as the model will see it: known from its header, before anything is decoded.

    `rows` x `columns` tokens show a picture, or each pair of a clip's frames; `seconds` says when those pairs are, and
    is None for a picture. `key` tells contents apart: what has the same key looks the same. `notice` is a sentence for
    the user, if something was left out.
    """

    @property
    def key(self) -> str: ...
    @property
    def rows(self) -> int: ...
    @property
    def columns(self) -> int: ...
    @property
    def seconds(self) -> tuple[float, ...] | None: ...
    @property
    def notice(self) -> str: ...
    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels, as stored."""
        ...


@dataclass(frozen=True, slots=True)
class Span:
    """The `rows` x `columns` tokens of a prompt, from `start` on, that show a picture or pair `frame` of a clip."""

    start: int
    rows: int
    columns: int
    seen: Seen
    frame: int = 0

    @property
    def tokens(self) -> int:
        return self.rows * self.columns

    @property
    def key(self) -> str:
        return f"{self.seen.key} {self.frame}"


class Prompt(tuple[int, ...]):
    """The tokens that a model is given, with the `spans` where some of them only hold a place for pictures.

    A plain sequence of tokens is a prompt without pictures. Slices and sums are such plain sequences.
    """

    spans: tuple[Span, ...]

    def __new__(cls, ids: Iterable[int], spans: Iterable[Span] = ()) -> Self:
        prompt = super().__new__(cls, ids)
        prompt.spans = tuple(spans)
        return prompt

    @classmethod
    def of(cls, ids: Sequence[int]) -> "Prompt":
        return ids if isinstance(ids, Prompt) else cls(ids)

    @property
    def identity(self) -> tuple[int, ...]:
        """The tokens, with negative numbers of what is shown in place of those that hold a place for it.

        Two prompts agree as far as their identities do: the same pad tokens before another picture are not the same.
        """
        if not self.spans:
            return self
        found = list(self)
        for span in self.spans:
            digest = hashlib.blake2b(span.key.encode(), digest_size=7).digest()
            first = int.from_bytes(digest) << 6  # below 2**62, whatever comes on top
            found[span.start : span.start + span.tokens] = range(-1 - first, -1 - first - span.tokens, -1)
        return tuple(found)


@dataclass(frozen=True, slots=True)
class Reuse:
    """What `Session.sync` did: `reused` of `total` tokens were already in the state; `reason` says why not more.

    `differs` is the first token in which the prompt parts from what the session had read, if it had read anything and
    the prompt does part from it.
    """

    reused: int
    total: int
    reason: str = ""
    differs: int | None = None


class Session(Protocol):
    """One timeline. Its state is that of a list of tokens; `sync` makes it the state of another list."""

    def sync(self, ids: Sequence[int]) -> Generator[tuple[int, int], None, Reuse]:
        """Bring the state to `ids` (at least one token, a `Prompt` if pictures are among them), reusing what it can.

        Yields (done, total) tokens after each chunk and returns what was reused; closing the generator cancels between
        chunks and leaves a usable session.
        """
        ...

    def shared(self, ids: Sequence[int]) -> int:
        """How many leading tokens of `ids` a `sync` would reuse."""
        ...

    @property
    def ids(self) -> Sequence[int]:
        """The tokens that the state is that of; not to be changed."""
        ...

    @property
    def tokens(self) -> int:
        """How many they are."""
        ...

    def logits(self) -> Any:
        """float32 numpy [vocab_size]: logits for the token after the last; valid until the next call."""
        ...

    def advance(self, token: int) -> None:
        """Append one token."""
        ...

    def close(self) -> None: ...


class Kept(Protocol):
    """A session with a name, on disk: `messages` are what was said so far, `resumed` the tokens whose state was read
    from there. The state is written when the engine is closed, and before that as often as costs little."""

    messages: tuple[Message, ...]
    resumed: int

    def remember(self, messages: Sequence[Message]) -> None:
        """This was said so far, the answer included: it is on disk when this returns."""
        ...


@dataclass(frozen=True, slots=True)
class Completion:
    """A whole answer, gathered from events."""

    text: str
    reasoning: str
    tool_calls: tuple[ToolCall, ...]
    done: Done

    @property
    def message(self) -> Message:
        """The answer as a turn, to append to the conversation.

        Its reasoning is never None: then the template would look for `</think>` in a text that only mentions it.
        """
        return Message("assistant", self.text, self.reasoning, self.tool_calls)


class Engine(ABC):
    """A loaded model. Use it as a context manager, or call `close`."""

    info: EngineInfo
    parallel: int = 1  # answers that may be under way at once, in turns; one more is refused

    @abstractmethod
    def stream(self, request: ChatRequest) -> Iterator[Event]:
        """Answer; closing the iterator cancels within one token."""

    @abstractmethod
    def open_session(self) -> Session: ...

    def keep(self, name: str, directory: Path | None = None, compress: bool = False) -> Kept:
        """Go on with the session of that name, or begin one. `directory` is ~/.qwen35/sessions by default; `compress`
        makes files smaller and writing slower. Raises SessionError if it cannot be gone on with; nothing of it is lost.
        """
        raise UsageError(
            f"sessions are kept by the process that has the model, and {self.info.backend} has none here", "session"
        )

    def prompt(self, request: ChatRequest) -> Prompt:
        """The tokens that the model is given for a request, up to where its answer begins.

        Pictures and clips are priced by their headers alone, so their cost is known before any work.
        """
        raise UsageError(f"the {self.info.backend} backend renders prompts out of our sight")

    def look(self, part: ImagePart | VideoPart) -> Seen:
        """What the model would see of a picture or clip, from its header. Raises MediaError if it cannot be used."""
        raise MediaError(f"{self.info.model} cannot see: it has no vision tower")

    def price(self, part: ImagePart | VideoPart) -> int:
        """Tokens that a picture or clip takes in a prompt, known before it is decoded. Raises MediaError."""
        raise MediaError(f"{self.info.model} cannot see: it has no vision tower")

    @abstractmethod
    def tokenize(self, text: str, special: bool = False) -> list[int]:
        """Token ids of `text`. Control tokens stay plain text unless `special`."""

    @abstractmethod
    def detokenize(self, ids: Sequence[int]) -> str: ...

    @abstractmethod
    def close(self) -> None: ...

    def chat(self, messages: "str | Iterable[Message | Mapping[str, Any]]", **options: Any) -> Iterator[Event]:
        """Events of the answer to a prompt or a conversation; options as in `ChatRequest` and `Sampling`."""
        return self.stream(ChatRequest.of(messages, **options))

    def complete(self, messages: "str | Iterable[Message | Mapping[str, Any]]", **options: Any) -> Completion:
        """The whole answer at once."""
        return gather(self.chat(messages, **options))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def gather(events: Iterable[Event]) -> Completion:
    """The whole answer that a stream of events spells."""
    text, reasoning, calls, done = [], [], [], None
    for event in events:
        match event:
            case Text():
                text.append(event.text)
            case Reasoning():
                reasoning.append(event.text)
            case ToolCall():
                calls.append(event)
            case Done():
                done = event
    if done is None:
        raise UsageError("the stream ended before its Done event")
    return Completion("".join(text), "".join(reasoning), tuple(calls), done)
