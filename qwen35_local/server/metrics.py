"""Counters of the server, as Prometheus reads them."""

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..bridge import Worker
from ..events import Done
from .guard import App, Message, Receive, Scope, Send

PREFIX = "qwen35_"
PATHS = (
    *("/health", "/metrics", "/tokenize", "/detokenize", "/apply-template", "/v1/models", "/v1/chat/completions"),
    *("/v1/completions", "/v1/responses", "/v1/messages", "/v1/messages/count_tokens"),
)
_HELP = {
    "requests_total": ("counter", "Requests by path and HTTP status."),
    "prompt_tokens_total": ("counter", "Prompt tokens of finished answers."),
    "cached_tokens_total": ("counter", "Prompt tokens that were reused from earlier answers."),
    "generated_tokens_total": ("counter", "Generated tokens of finished answers."),
    "answers_total": ("counter", "Finished answers by how they ended."),
    "prompt_seconds_total": ("counter", "Time to the first token, summed over answers."),
    "generation_seconds_total": ("counter", "Time after the first token, summed over answers."),
    "sent_bytes_total": ("counter", "Bytes of response bodies."),
    "joined_total": ("counter", "Requests that joined the same request in flight."),
    "active_answers": ("gauge", "Answers taking turns."),
    "waiting_answers": ("gauge", "Requests in the queue."),
    "model_loaded": ("gauge", "1 while the model is in memory."),
    "model_bytes": ("gauge", "Bytes of the loaded weights."),
    "peak_memory_bytes": ("gauge", "Most memory of the backend during the last answer."),
    "resident_bytes": ("gauge", "Memory of this process, where the system tells."),
}


class Metrics:
    """What has happened since the start. Written from the event loop only."""

    def __init__(self) -> None:
        self._counts: Counter[tuple[str, str]] = Counter()
        self._peak = 0
        self._extra: dict[tuple[str, str], float] = {}

    def add(self, name: str, value: float = 1, **labels: str) -> None:
        shown = ",".join(f'{key}="{value}"' for key, value in labels.items())
        self._counts[name, f"{{{shown}}}" if shown else ""] += value  # pyright: ignore[reportArgumentType]

    def watching(self, app: App) -> App:
        """The app, with its responses counted. Unknown paths count as one, or anyone could fill the memory."""

        async def watched(scope: Scope, receive: Receive, send: Send) -> None:
            async def counting(message: Message) -> None:
                if message["type"] == "http.response.start":
                    path = scope["path"] if scope["path"] in PATHS else "other"
                    self.add("requests_total", path=path, status=str(message["status"]))
                else:
                    self.add("sent_bytes_total", len(message.get("body", b"")))
                await send(message)

            await app(scope, receive, counting if scope["type"] == "http" else send)

        return watched

    def done(self, done: Done) -> None:
        usage, stats = done.usage, done.stats
        self.add("prompt_tokens_total", usage.prompt_tokens)
        self.add("cached_tokens_total", usage.cached_tokens)
        self.add("generated_tokens_total", usage.completion_tokens)
        self.add("answers_total", reason=done.finish_reason)
        self.add("prompt_seconds_total", stats.time_to_first_token)
        self.add("generation_seconds_total", stats.total_time - stats.time_to_first_token)
        self._peak = stats.peak_memory
        # What only one backend knows, as expert cache hits and bytes read.
        self._extra = {name: value for name, value in _flat("", "", stats.extra) if name != ("seed", "")}

    def text(self, worker: Worker) -> str:
        """The exposition format."""
        info = worker.info
        gauges = {
            "active_answers": worker.active,
            "waiting_answers": worker.waiting,
            "model_loaded": int(worker.state == "ready"),
            "model_bytes": info.memory if info and worker.state == "ready" else 0,
            "peak_memory_bytes": self._peak,
            "resident_bytes": _resident(),
        }
        counts = {**self._counts, **{(name, ""): value for name, value in gauges.items()}}
        return "\n".join([*self._lines(counts), *self.backend(), ""])

    def _lines(self, counts: Mapping[tuple[str, str], float]) -> Iterator[str]:
        for name, (kind, meaning) in _HELP.items():
            yield f"# HELP {PREFIX}{name} {meaning}"
            yield f"# TYPE {PREFIX}{name} {kind}"
            found = {labels: value for (counted, labels), value in counts.items() if counted == name}
            for labels, value in (found or ({} if name in ("requests_total", "answers_total") else {"": 0})).items():
                yield f"{PREFIX}{name}{labels} {value:.10g}"

    def backend(self) -> Iterator[str]:
        """What the backend said of the last answer, as expert cache hits and bytes read."""
        for name in dict.fromkeys(name for name, _ in self._extra):
            yield f"# TYPE {PREFIX}backend_{name} gauge"
            for (of, labels), value in self._extra.items():
                if of == name:
                    yield f"{PREFIX}backend_{name}{labels} {value:.10g}"


def _flat(name: str, labels: str, value: Any) -> Iterator[tuple[tuple[str, str], float]]:
    """The numbers in a tree of mappings and lists: `experts_hit_rate`, and of the sixth of `layers`
    `experts_layer_hit_rate{layer="5"}`."""
    if isinstance(value, int | float):
        yield (name, labels), value
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            if str(key).isidentifier():
                yield from _flat(f"{name}_{key}" if name else key, labels, inner)
    elif isinstance(value, Sequence) and not isinstance(value, str | bytes) and not labels:
        one = name.removesuffix("s")
        for number, inner in enumerate(value):
            yield from _flat(one, f'{{{one.rpartition("_")[2]}="{number}"}}', inner)


def _resident() -> int:
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return 0
