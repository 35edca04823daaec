"""What the status line is told, gathered from the engine's state and from the conversation."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .host import Failed, Loading, Ready, State
from .talk import Talk
from .turns import Turn


@dataclass(frozen=True, slots=True)
class Facts:
    """What the line shows. `done` of `total` is the work of the present phase; tokens and bytes as named."""

    phase: str = "loading"  # loading, failed, ready, prefill, thinking, answering
    done: int = 0
    total: int = 0
    seconds: float = 0.0
    rate: float = 0.0  # tokens a second
    context_used: int = 0
    context: int = 0
    memory: int = 0
    budget: int = 0  # the most memory that the engine may use; 0 if it has no such limit
    model: str = ""
    hit_rate: float | None = None  # of the expert cache
    disk: tuple[float, ...] = ()  # GB a second read for experts, by answer, the newest last
    tick: int = 0


@dataclass(slots=True)
class Gauges:
    """The numbers of the answers so far; `read` them when the conversation changed."""

    rate: float = 0.0
    context_used: int = 0
    memory: int = 0
    hit_rate: float | None = None
    disk: tuple[float, ...] = ()

    def read(self, path: Sequence[Turn]) -> None:
        answered = [turn.stats for turn in path if turn.stats]
        last: Mapping[str, Any] = answered[-1] if answered else {}
        self.context_used = last.get("prompt", 0) + last.get("tokens", 0)
        self.rate = last.get("speed", 0.0)
        self.memory = last.get("memory", 0)
        experts = [stats["extra"]["experts"] for stats in answered if stats.get("extra", {}).get("experts")]
        self.hit_rate = experts[-1].get("hit_rate") if experts else None
        self.disk = tuple(float(found.get("read_gbps", 0.0)) for found in experts)

    def facts(self, state: State, talk: Talk, tick: int) -> Facts:
        if isinstance(state, Failed):
            return Facts("failed")
        if isinstance(state, Loading):
            return Facts("loading", state.done, state.total, tick=tick)
        answer, known = talk.answer, self._known(state)
        if answer is None:
            return Facts("ready", rate=self.rate, context_used=self.context_used, **known)
        progress = answer.progress
        known |= {"seconds": answer.elapsed, "tick": tick, "rate": answer.rate}
        known["context_used"] = (progress.total if progress else self.context_used) + answer.tokens
        if answer.tokens == 0:
            done, total = (progress.done, progress.total) if progress else (0, 0)
            return Facts("prefill", done, total, **known)
        return Facts("thinking" if answer.thinking else "answering", **known)

    def _known(self, state: Ready) -> dict[str, Any]:
        info = state.info
        return {
            "model": f"{info.model} · {info.backend} {info.device}".strip(),
            "memory": max(info.memory, self.memory),
            "budget": info.budget,
            "context": info.context,
            "hit_rate": self.hit_rate,
            "disk": self.disk,
        }
