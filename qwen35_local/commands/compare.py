"""`qwen35 compare A B --text FILE`: what B (a quantisation) says differently from A (the better one), and where."""

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from .. import open as open_engine
from ..backends import gguf_of
from ..backends.local import LocalEngine
from ..backends.mlx import MlxEngine
from ..engine import ChatRequest
from ..errors import UsageError
from ..hub.place import on_disk
from ..hub.quality import Agreement, agreement, shared_experts
from ..model.moe import Routed

PER_LINE = 8  # layers; two of the model's periods
WINDOW = 512  # tokens that are read together; each window begins from an empty state


@dataclass(frozen=True, slots=True)
class Window:
    """Tokens that are read together, from an empty state; those before `start` are not judged."""

    ids: list[int]
    start: int = 1


Windows = Callable[[LocalEngine], list[Window]]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("a", help="the model to compare with, as released or nearly")
    parser.add_argument("b", help="the model in question")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--text", type=Path, metavar="FILE", help="a text of the kind that you care about")
    source.add_argument(
        "--chats",
        type=Path,
        metavar="FILE",
        help='JSON lines {"messages": […]} that end with an answer, which is judged',
    )
    parser.add_argument("--tokens", type=int, default=4096, help="read at most so many (default: %(default)s)")
    parser.add_argument("--memory", metavar="SIZE", help="most to use for each model, as 24GB")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> int:
    file = args.text or args.chats
    try:
        content = file.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read {file}: {error}", "text") from error
    windows = partial(text_windows if args.text else chat_windows, content, args.tokens)
    found = compare(args.a, args.b, windows, args.memory)
    print(json.dumps(found, indent=1) if args.json else "\n".join(lines(found)))
    return 0


def text_windows(text: str, most: int, engine: LocalEngine) -> list[Window]:
    ids = engine.tokenize(text)[:most]
    return [Window(ids[at : at + WINDOW]) for at in range(0, len(ids), WINDOW) if len(ids) - at > 1]


def chat_windows(text: str, most: int, engine: LocalEngine) -> list[Window]:
    """One conversation a window; no more of them than fit into `most` tokens."""
    windows, total = [], 0
    for number, line in enumerate(filter(str.strip, text.splitlines()), 1):
        try:
            *asked, answer = json.loads(line)["messages"]
            request = ChatRequest.of(asked, thinking=False)
            prompt = list(engine.prompt(request))
            said = engine.tokenize(answer["content"]) + engine.tokenize("<|im_end|>", special=True)
        except (ValueError, KeyError, TypeError) as error:
            raise UsageError(f"line {number} of the chats is not a conversation that ends with an answer") from error
        total += len(prompt) + len(said)
        if total > most:
            break
        windows.append(Window(prompt + said, len(prompt)))
    return windows


def compare(a: str, b: str, make_windows: Windows, memory: str | None = None) -> dict[str, Any]:
    """Numbers by name. One model at a time is in memory; the logits of the first wait in a temporary file.
    `routers` is empty if one of them does not say which experts it takes."""
    with on_disk(Path(tempfile.gettempdir()) / "logits"), tempfile.TemporaryFile() as kept:
        with open_engine(a, **_options(a, memory)) as engine:
            windows = make_windows(engine)
            if not windows:
                raise UsageError("there is nothing to judge: the text is too short, or --tokens too small", "text")
            first, vocabulary = _Ear(engine), engine.info.vocab_size
            for window in _watched(a, windows):
                kept.write(np.ascontiguousarray(engine.logits(window.ids), np.float32).data)
        kept.seek(0)
        total = Agreement()
        with open_engine(b, **_options(b, memory)) as engine:
            if engine.info.vocab_size != vocabulary or make_windows(engine) != windows:
                raise UsageError(f"{a} and {b} have different tokenizers: their answers cannot be compared")
            second = _Ear(engine)
            for window in _watched(b, windows):
                logits = engine.logits(window.ids)
                before = np.frombuffer(kept.read(4 * logits.size), np.float32).reshape(logits.shape)
                total += agreement(before, logits, window.ids, window.start)
    routers = [shared_experts(*pair) for pair in zip(first.experts(), second.experts(), strict=False)]
    return {"a": a, "b": b, "tokens": total.tokens} | total.summary() | {"routers": routers}


def _options(name: str, memory: str | None) -> dict[str, Any]:
    """Everything in float32, so that what differs is the weights."""
    return {"dtype": "float32"} | ({"memory": memory} if memory and gguf_of(name) is None else {})


def _watched(name: str, windows: Sequence[Window]) -> Iterator[Window]:
    """With a line that says how far it is, where somebody watches."""
    watched = sys.stderr.isatty()
    for number, window in enumerate(windows, 1):
        if watched:
            print(f"\r\x1b[K{Path(name).name}: {number} of {len(windows)}", end="", file=sys.stderr, flush=True)
        yield window
    if watched:
        print("\r\x1b[K", end="", file=sys.stderr, flush=True)


class _Ear:
    """Hears which experts a model takes from now on; llama.cpp does not say."""

    def __init__(self, engine: LocalEngine):
        layers = engine.model.layers if isinstance(engine, MlxEngine) else ()
        self._heard: list[list[np.ndarray]] = [[] for _ in layers]
        for layer, heard in zip(layers, self._heard, strict=True):
            layer.mlp.route = _remembering(layer.mlp.route, heard)  # pyright: ignore[reportAttributeAccessIssue]

    def experts(self) -> list[np.ndarray]:
        """Of each layer, [tokens, K]."""
        return [np.concatenate(heard) for heard in self._heard]


def _remembering(route: Callable[[Any], Routed], heard: list[np.ndarray]) -> Callable[[Any], Routed]:
    def route_and_remember(x: Any) -> Routed:
        routed = route(x)
        heard.append(np.array(routed.ids))
        return routed

    return route_and_remember


def lines(found: dict[str, Any]) -> list[str]:
    """For people; routers layer by layer, as they are where trouble starts."""
    return [
        f"{found['b']} against {found['a']}, {found['tokens']} tokens",
        f"perplexity         {found['perplexity_b']:.4f} (against {found['perplexity_a']:.4f})",
        f"KL divergence      {found['kl']:.5f} nats a token, at most {found['kl_worst']:.3f}",
        f"same first choice  {100 * found['top1']:.2f} %",
        *_routers(found["routers"]),
    ]


def _routers(shares: Sequence[float]) -> Iterator[str]:
    if not shares:
        yield "same experts       not told: llama.cpp does not say which it takes"
        return
    worst = min(range(len(shares)), key=shares.__getitem__)
    yield f"same experts       {100 * np.mean(shares):.2f} % on average; layer by layer (least in layer {worst}):"
    for first in range(0, len(shares), PER_LINE):
        row = " ".join(f"{100 * share:5.1f}" for share in shares[first : first + PER_LINE])
        yield f"{f'{first} to {min(first + PER_LINE, len(shares)) - 1}':>17}  {row}"
