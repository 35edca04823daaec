"""What every surface turns a request body into."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..engine import ChatRequest
from .fields import Fields
from .refusal import Refused

# Ends of the reasoning scale; tokens of thinking, None for as much as the model wants.
EFFORT: Mapping[str, int | None] = {
    "none": 0,
    "minimal": 512,
    "low": 2048,
    "medium": 8192,
    "high": None,
    "xhigh": None,
}
MAX_STOPS = 128
MAX_TOOLS = 128


@dataclass(frozen=True)
class Served:
    """What this server answers for. `fetch` gets the bytes of a media URL and its MIME type, or raises Refused."""

    model: str
    context: int
    vocab_size: int
    fetch: Callable[[str], bytes]
    aliases: tuple[str, ...] = ()
    created: int = 0
    preserve_thinking: bool = False  # unless a request says otherwise

    def check_model(self, name: str | None) -> str:
        """The name to answer under; nothing is ever loaded because a request names it."""
        if name is None or name in (self.model, *self.aliases) or "*" in self.aliases:
            return name or self.model
        raise Refused(
            404,
            f"model {name[:80]!r} is not served here, {self.model!r} is (--alias adds names)",
            "model",
            "model_not_found",
        )


@dataclass(frozen=True)
class Asked:
    """A request that can be honoured. `progress` asks for prefill progress, `usage` for a usage chunk in a stream."""

    request: ChatRequest
    model: str
    stream: bool = False
    usage: bool = False
    progress: bool = False
    logprobs: bool = False
    extra: Mapping[str, Any] = field(default_factory=dict)


def sampling_of(body: Fields) -> dict[str, Any]:
    """The sampling fields that OpenAI's surfaces and other local servers share, as `ChatRequest.of` takes them."""
    top_p = body.number("top_p", 0, 1)
    return {
        "temperature": body.number("temperature", 0, 2),
        # 0 is allowed by the description: the likeliest token alone.
        "top_p": 1e-9 if top_p == 0 else top_p,
        "top_k": body.whole("top_k", 0, 2**31 - 1),
        "min_p": body.number("min_p", 0, 1),
        "presence_penalty": body.number("presence_penalty", -2, 2),
        "frequency_penalty": body.number("frequency_penalty", -2, 2),
        "repetition_penalty": _repetition(body),
        "seed": body.whole("seed", -(2**63), 2**64),
        "logit_bias": _bias(body),
    }


def _repetition(body: Fields) -> float | None:
    ours, theirs = (body.number(name, 0.01, 10) for name in ("repetition_penalty", "repeat_penalty"))
    if ours is not None and theirs is not None and ours != theirs:
        raise body.refuse("repeat_penalty", f"{theirs:g} and repetition_penalty {ours:g} contradict each other")
    return theirs if ours is None else ours


def _bias(body: Fields) -> dict[int, float] | None:
    """Token ids are the keys of a JSON object, so strings."""
    given = body.mapping("logit_bias")
    if given is None:
        return None
    made: dict[int, float] = {}
    for key, value in given.items():
        if not (key.isascii() and key.isdigit() and len(key) < 10):
            raise body.refuse("logit_bias", f"must have token ids as keys, not {key[:40]!r}")
        if isinstance(value, bool) or not isinstance(value, int | float) or not -100 <= value <= 100:
            raise body.refuse("logit_bias", f"must have values from -100 to 100, not {value!r}")
        made[int(key)] = value
    return made


def max_tokens_of(body: Fields, *names: str) -> int | None:
    """The one limit that several names spell."""
    found = {name: value for name in names if (value := body.whole(name, 1)) is not None}
    if len(set(found.values())) > 1:
        first, second = list(found)[:2]
        raise body.refuse(first, f"{found[first]} and {second} {found[second]} contradict each other: send one of them")
    return next(iter(found.values()), None)


def thinking_of(body: Fields, effort: str | None, served: Served) -> dict[str, Any]:
    """Whether to think, how long and how long to remember it, from every spelling of it."""
    kwargs = body.object("chat_template_kwargs") or Fields({}, body.param("chat_template_kwargs"))
    budget = body.whole("thinking_budget", 0)
    switches = {
        "chat_template_kwargs.enable_thinking": kwargs.flag("enable_thinking") if "enable_thinking" in kwargs else None,
        "enable_thinking": body.flag("enable_thinking") if "enable_thinking" in body else None,
        "reasoning_effort": None if effort is None else effort != "none",
    }
    preserve = kwargs.flag("preserve_thinking", served.preserve_thinking)
    kwargs.end()
    said = {name: value for name, value in switches.items() if value is not None}
    if len(set(said.values())) > 1:
        first, *_, second = said
        raise body.refuse(first, f"and {second} contradict each other: one switches thinking on, the other off")
    thinking = next(iter(said.values()), True)
    if budget is None and thinking and effort is not None:
        budget = EFFORT[effort]
    return {
        "thinking": thinking and budget != 0,
        "thinking_budget": budget or None,
        "preserve_thinking": preserve,
    }
