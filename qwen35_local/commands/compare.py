"""`qwen35 compare A B --text FILE`: what B (a quantisation) says differently from A (the better one), and where."""

import argparse
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from .. import open as open_engine
from ..backends.local import LocalEngine
from ..backends.mlx import MlxEngine
from ..engine import ChatRequest
from ..errors import UsageError
from ..hub.quality import Agreement, agreement, shared_experts
from ..model.moe import Routed

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
    """Numbers by name. One model at a time has its weights in memory."""
    options: dict[str, Any] = {"dtype": "float32"} | ({"memory": memory} if memory else {})
    with _open(a, options) as engine:
        windows = make_windows(engine)
        if not windows:
            raise UsageError("there is nothing to judge: the text is too short, or --tokens too small", "text")
        first = _Heard(engine, windows)
    with _open(b, options) as engine:
        if make_windows(engine) != windows:
            raise UsageError(f"{a} and {b} have different tokenizers: their answers cannot be compared token by token")
        second = _Heard(engine, windows)
    total = Agreement()
    for x, y, window in zip(first.logits, second.logits, windows, strict=True):
        total += agreement(x, y, window.ids, window.start)
    routers = [shared_experts(x, y) for x, y in zip(first.experts, second.experts, strict=True)]
    return {"a": a, "b": b, "tokens": total.tokens} | total.summary() | {"routers": routers}


@contextmanager
def _open(name: str, options: dict[str, Any]) -> Iterator[MlxEngine]:
    with open_engine(name, **options) as engine:
        if not isinstance(engine, MlxEngine):
            raise UsageError(f"{name} is a GGUF file: compare reads MLX and released checkpoints")
        yield engine


class _Heard:
    """A model's logits for every window (float32 [T, V] each), and its chosen experts (layer -> [tokens, K])."""

    def __init__(self, engine: MlxEngine, windows: Sequence[Window]):
        chosen: list[list[np.ndarray]] = [[] for _ in engine.model.layers]
        for layer, heard in zip(engine.model.layers, chosen, strict=True):
            layer.mlp.route = _remembering(layer.mlp.route, heard)  # pyright: ignore[reportAttributeAccessIssue]
        self.logits = [engine.logits(window.ids) for window in windows]
        self.experts = [np.concatenate(heard) for heard in chosen]


def _remembering(route: Callable[[Any], Routed], heard: list[np.ndarray]) -> Callable[[Any], Routed]:
    def route_and_remember(x: Any) -> Routed:
        routed = route(x)
        heard.append(np.array(routed.ids))
        return routed

    return route_and_remember


def lines(found: dict[str, Any]) -> list[str]:
    """For people; the worst layers first, as they are where trouble starts."""
    routers = found["routers"]
    worst = sorted(range(len(routers)), key=routers.__getitem__)[:5]
    return [
        f"{found['b']} against {found['a']}, {found['tokens']} tokens",
        f"perplexity         {found['perplexity_b']:.4f} (against {found['perplexity_a']:.4f})",
        f"KL divergence      {found['kl']:.5f} nats a token, at most {found['kl_worst']:.3f}",
        f"same first choice  {100 * found['top1']:.2f} %",
        f"same experts       {100 * float(np.mean(routers)):.2f} % on average; least in "
        + ", ".join(f"layer {i} {100 * routers[i]:.1f} %" for i in worst),
    ]
