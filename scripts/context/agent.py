"""An agent at work: questions, thoughts, tool calls and results, sent as a client of an API sends them."""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from random import Random
from typing import Any

from scripts.miniature.families.tools import TOOLS, weather

NAMES = ("get_weather", "get_time", "calculate")
Body = list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Reply:
    """What a server said to one request: the assistant message as JSON, and what reading the prompt cost. `said` are
    the tokens of the answer that it has read as well, `differs` where the prompt parts from what it had read before."""

    message: Mapping[str, Any]
    prompt_tokens: int
    cached_tokens: int
    reason: str = ""
    said: int = 0
    differs: int | None = None

    @property
    def read(self) -> int:
        return self.prompt_tokens - self.cached_tokens


def tools() -> list[dict[str, Any]]:
    return [TOOLS[name] for name in NAMES]


def converse(ask: Callable[[Body], Reply], requests: int, seed: int = 0) -> Iterator[tuple[str, Reply]]:
    """Yields (what the client sent last, the reply) for so many requests: a question, then a result for every call.

    The client keeps messages as it got them but for the thinking, which OpenAI's clients do not send back. Results are
    long, as those of real tools are.
    """
    rng = Random(seed)
    messages: Body = [{"role": "system", "content": "You are a helpful assistant."}]
    result, asked = "", "question"
    for _ in range(requests):
        if asked == "question":
            question, _, result, *_ = weather(rng)
            messages.append({"role": "user", "content": question})
        reply = ask(messages)
        yield asked, reply
        calls = reply.message.get("tool_calls") or []
        content = reply.message.get("content") or ""
        messages.append({"role": "assistant", "content": content, **({"tool_calls": calls} if calls else {})})
        stations = json.dumps([{"station": n, "id": rng.randint(10**5, 10**6)} for n in range(8)])
        for call in calls:
            messages.append({"role": "tool", "tool_call_id": call["id"], "content": f"{result}\n{stations}"})
        asked = "result" if calls else "question"
