"""OpenAI's (legacy) completions: a raw prompt goes on, without the chat format. Pure."""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ..engine import ChatRequest, Completion
from ..events import Done, Event, Progress, Text, TokenLogprob
from .asked import MAX_STOPS, Asked, Served, sampling_of
from .chat_reply import FINGERPRINT, sse, timings, usage_of
from .fields import Fields
from .refusal import bad

DEFAULT_MAX_TOKENS = 16  # OpenAI's


@dataclass(frozen=True)
class Texts:
    """How text and tokens become each other (the engine's tokenizer)."""

    tokenize: Callable[[str], list[int]]
    detokenize: Callable[[list[int]], str]


def parse_completion(value: Mapping[str, Any], served: Served, texts: Texts) -> Asked:
    """A completions request; control tokens in its prompt are recognised, as a raw prompt needs them."""
    body = Fields(value)
    model = served.check_model(body.text("model"))
    ids = _prompt(body, served, texts)
    logprobs = body.whole("logprobs", 0, 20)
    echo = body.flag("echo")
    limit = body.whole("max_tokens", 0)
    stream = body.flag("stream")
    options = body.object("stream_options") or Fields({}, "stream_options")
    usage = options.flag("include_usage")
    options.ignore("include_obfuscation")
    options.end()
    request = ChatRequest.of(
        (),
        raw=tuple(ids),
        thinking=False,
        **_neutral(sampling_of(body)),
        max_tokens=DEFAULT_MAX_TOKENS if limit is None else limit,
        stop=body.strings("stop", MAX_STOPS),
        top_logprobs=logprobs,
        echo=echo and logprobs is not None,
    )
    body.only("n", [1], "one answer at a time; ask again for another")
    body.only("best_of", [1], "one answer at a time")
    body.never("suffix", "this model was not trained to fill gaps through this endpoint")
    progress = body.flag("return_progress")
    body.ignore("user", "cache_prompt")
    body.end()
    text = texts.detokenize(ids) if echo and logprobs is None else ""
    return Asked(request, model, stream, usage, progress, logprobs is not None, {"echo": text})


def _neutral(sampling: dict[str, Any]) -> dict[str, Any]:
    """OpenAI's defaults: a raw prompt has no mode with values of its own."""
    defaults = {"temperature": 1.0, "top_p": 1.0, "top_k": 0, "presence_penalty": 0.0}
    return sampling | {name: value for name, value in defaults.items() if sampling[name] is None}


def _prompt(body: Fields, served: Served, texts: Texts) -> list[int]:
    prompt = body.any("prompt")
    if isinstance(prompt, list) and len(prompt) == 1 and isinstance(prompt[0], str | list):
        (prompt,) = prompt
    if isinstance(prompt, str):
        ids = texts.tokenize(prompt)
    elif isinstance(prompt, list) and all(isinstance(item, int) and not isinstance(item, bool) for item in prompt):
        ids = prompt
    elif isinstance(prompt, list) and len(prompt) > 1 and all(isinstance(item, str | list) for item in prompt):
        raise body.refuse("prompt", f"holds {len(prompt)} prompts: send one a request")
    else:
        raise body.refuse("prompt", "must be text or an array of token ids")
    if not ids:
        raise body.refuse("prompt", "is empty")
    if unknown := [token for token in ids if not 0 <= token < served.vocab_size]:
        raise bad(f"prompt holds token {unknown[0]}, and the model has {served.vocab_size}", "prompt")
    return ids


class CompletionReply:
    """One completion, streamed or whole."""

    def __init__(self, asked: Asked, name: str, created: int):
        self._asked = asked
        self._base = {
            "id": f"cmpl-{name}",
            "object": "text_completion",
            "created": created,
            "model": asked.model,
            "system_fingerprint": FINGERPRINT,
        }
        self._offset = 0

    def start(self) -> Iterator[bytes]:
        if echo := self._asked.extra["echo"]:
            yield self._chunk(echo, None)

    def feed(self, event: Event) -> Iterator[bytes]:
        match event:
            case Text(text, logprobs):
                yield self._chunk(text, self._logprobs(list(logprobs)) if self._asked.logprobs else None)
            case Progress("prefill", done, total) if self._asked.progress:
                yield sse({**self._base, "choices": [], "prompt_progress": {"total": total, "processed": done}})
            case Done():
                yield self._chunk("", None, event.finish_reason, timings=timings(event.usage, event.stats))
                if self._asked.usage:
                    yield sse({**self._base, "choices": [], "usage": usage_of(event.usage)})
                yield b"data: [DONE]\n\n"

    def error(self, body: dict[str, Any]) -> bytes:
        return sse(body)

    def whole(self, answer: Completion, events: list[Event]) -> dict[str, Any]:
        tokens = [one for event in events if isinstance(event, Text) for one in event.logprobs]
        choice = {
            "index": 0,
            "text": self._asked.extra["echo"] + answer.text,
            "logprobs": self._logprobs(tokens) if self._asked.logprobs else None,
            "finish_reason": answer.done.finish_reason,
        }
        usage = usage_of(answer.done.usage)
        return {
            **self._base,
            "choices": [choice],
            "usage": usage,
            "timings": timings(answer.done.usage, answer.done.stats),
        }

    def _chunk(self, text: str, logprobs: Any, finish: str | None = None, **more: Any) -> bytes:
        choice = {"index": 0, "text": text, "logprobs": logprobs, "finish_reason": finish}
        extra = {"usage": None} if self._asked.usage else {}
        return sse({**self._base, "choices": [choice], **extra, **more})

    def _logprobs(self, tokens: list[TokenLogprob]) -> dict[str, Any]:
        """OpenAI's four parallel lists. The first token of a prompt has no probability: null."""
        texts = [token.data.decode(errors="replace") for token in tokens]
        offsets = []
        for text in texts:
            offsets.append(self._offset)
            self._offset += len(text)
        return {
            "tokens": texts,
            "token_logprobs": [None if math.isnan(one.logprob) else max(one.logprob, -9999.0) for one in tokens],
            "top_logprobs": [
                None
                if math.isnan(one.logprob)
                else {data.decode(errors="replace"): max(value, -9999.0) for _, data, value in one.top}
                for one in tokens
            ],
            "text_offset": offsets,
        }
