"""Score a model directory on the held-out set by real greedy decoding: our engine, or mlx-lm over the same tokens.

python -m scripts.miniature.evaluate [--model DIR] [--sights] [--each 20] [--backend NAME] [--mlx-lm] [--sampled] [-v]
"""

import argparse
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from qwen35_local.chat.stream import Splitter
from qwen35_local.chat.template import render
from qwen35_local.chat.tokenizer import Tokenizer
from qwen35_local.engine import ChatRequest, Completion, Engine, gather
from qwen35_local.events import Done, Stats, Usage

from .items import HELD_OUT, HELD_OUT_SIGHTS, ROOT, Item, read, some_of_each

Answer = Callable[[ChatRequest], Completion]


def score(answer: Answer, items: Iterable[Item], sampled: bool = False, verbose: bool = False) -> dict[str, float]:
    """Share of right answers by family and mode."""
    right, seen = Counter(), Counter()
    for item in items:
        key = f"{item.family}{'+think' if item.thinking else ''}"
        request = replace(item.request, sampling=None) if sampled else item.request
        given = answer(request)
        seen[key] += 1
        right[key] += item.is_right(given)
        if verbose and not item.is_right(given):
            asked = item.messages[-1].text[-100:]
            wanted = item.content or item.calls
            got = given.text or [(call.name, dict(call.arguments)) for call in given.tool_calls]
            print(json.dumps([key, asked, wanted, given.reasoning[-80:], got], ensure_ascii=False), flush=True)
    return {key: round(right[key] / seen[key], 3) for key in sorted(seen)}


def with_engine(engine: Engine) -> Answer:
    return lambda request: gather(engine.stream(request))


def with_tokens(tokenizer: Tokenizer, generate: Callable[[list[int]], Iterator[int]]) -> Answer:
    """A backend that only turns a prompt into ids: the same template and splitter around it."""

    def answer(request: ChatRequest) -> Completion:
        prompt = tokenizer.encode_segments(render(request.messages, request.tools, request.thinking))
        splitter = Splitter(tokenizer, request.thinking, request.tools)
        events = []
        for place, token in enumerate(generate(prompt)):
            if token in tokenizer.eos_ids or place == request.max_tokens:
                break
            events += splitter.feed(token)
        done = Done("stop", Usage(len(prompt), 0), Stats(0, 0, 0, 0))
        return gather([*events, *splitter.finish(), done])

    return answer


def mlx_lm_generate(folder: Path) -> Callable[[list[int]], Iterator[int]]:
    """Greedy ids from mlx-lm on the CPU in float32."""
    import mlx.core as mx
    from mlx_lm.generate import generate_step  # pyright: ignore[reportMissingImports]
    from mlx_lm.utils import load_model  # pyright: ignore[reportMissingImports]

    mx.set_default_device(mx.Device(mx.cpu))
    model, _ = load_model(folder)
    model.set_dtype(mx.float32)
    return lambda prompt: (int(token) for token, _ in generate_step(mx.array(prompt), model, max_tokens=-1))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=ROOT / "qwen35_local" / "miniature")
    parser.add_argument("--each", type=int, default=20, help="prompts of every family and mode")
    parser.add_argument("--sights", action="store_true", help="the questions about pictures and clips")
    parser.add_argument("--mlx-lm", action="store_true", help="decode with mlx-lm instead of our engine")
    parser.add_argument("--backend", default="auto", help="auto, mlx or llama.cpp")
    parser.add_argument("--sampled", action="store_true", help="the card's sampling instead of greedy")
    parser.add_argument("-v", "--verbose", action="store_true", help="print wrong answers")
    options = parser.parse_args()
    items = some_of_each(read(HELD_OUT_SIGHTS if options.sights else HELD_OUT), options.each)
    if options.mlx_lm:
        answer = with_tokens(Tokenizer.from_dir(options.model), mlx_lm_generate(options.model))
    else:
        import qwen35_local

        answer = with_engine(qwen35_local.open(options.model, backend=options.backend))
    print(json.dumps(score(answer, items, options.sampled, options.verbose), indent=1))


if __name__ == "__main__":
    main()
