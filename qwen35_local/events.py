"""What an engine says while it answers: frozen values, in the order they happen.

A chat yields `Progress*`, then `Reasoning*`, `Text*` and `ToolCall*` as the model writes them (and `Held` where a token
shows nothing yet), then exactly one `Done`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

FinishReason = Literal["stop", "length", "tool_calls"]


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """One generated token: its log-probability and those of the likeliest alternatives, most likely first.

    Probabilities are those of the model (softmax of the raw logits), before temperature, penalties and truncation.
    """

    id: int
    data: bytes
    logprob: float
    top: tuple[tuple[int, bytes, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Progress:
    """Work done before the first token. `unit` is "tokens" or "bytes".

    `plan`, while loading: where the memory will go, in bytes by name, once that is decided.
    """

    phase: Literal["load", "prefill"]
    done: int
    total: int
    unit: Literal["tokens", "bytes"] = "tokens"
    plan: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Reasoning:
    """A piece of the model's thinking, whole characters only."""

    text: str
    logprobs: tuple[TokenLogprob, ...] = ()


@dataclass(frozen=True, slots=True)
class Text:
    """A piece of the answer, whole characters only."""

    text: str
    logprobs: tuple[TokenLogprob, ...] = ()


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A complete call that the model wrote (also used inside an assistant `Message`)."""

    name: str
    arguments: Mapping[str, Any]
    id: str = ""


@dataclass(frozen=True, slots=True)
class Held:
    """A token whose text cannot be shown yet, inside a call or half a character.

    So that every token is an event: whoever iterates can stop, or do something else, after each.
    """

    tokens: int  # generated so far


@dataclass(frozen=True, slots=True)
class Usage:
    """Token counts of one answer. `cached_tokens` of the prompt were reused from an earlier turn."""

    prompt_tokens: int
    completion_tokens: int
    reasoning_tokens: int = 0
    cached_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Stats:
    """Speed and memory of one answer, under mlx-lm's names where it has one.

    `prompt_tps` counts only tokens that were computed (not reused); `generation_tps` excludes the first token, which
    belongs to the prompt's time; `peak_memory` is in bytes; `extra` holds what only one backend knows.
    """

    prompt_tps: float
    generation_tps: float
    time_to_first_token: float
    total_time: float
    peak_memory: int = 0
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Done:
    """The end of an answer; always the last event. `stop` is the stop string that matched, if one did."""

    finish_reason: FinishReason
    usage: Usage
    stats: Stats
    stop: str | None = None


Event = Progress | Reasoning | Text | ToolCall | Held | Done
