"""Our llama.cpp backend against the same library's high-level `Llama` class and a bare loop on its C API, in one run.

    python scripts/bench_llamacpp.py [--quick] [--json FILE] [--threads N] [--file GGUF]

On a random 0.5 G-parameter model (MXFP4 experts, 8-bit matrices) each repeat times all three in turn: prefill of 512
tokens, decode of 64 after them; ours is the whole chat stack. Then one long answer each: CPU time per token outside
`llama_decode`, in its first and in its last tenth; and of our stack alone, on made-up logits over the released
vocabulary. Then a chat's second turn: tokens that are read again. A ratio above 1 means that ours is faster.
"""

import argparse
import ctypes
import importlib
import json
import platform
import statistics
import tempfile
import time
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any

import llama_cpp  # pyright: ignore[reportMissingImports]
import numpy as np
from bench_engine import plain_tokenizer
from make_checkpoint import PRESETS, write

import qwen35_local
from qwen35_local.backends.llama_cpp.engine import LlamaCppEngine
from qwen35_local.backends.llama_cpp.machine import physical_cores
from qwen35_local.backends.llama_cpp.plan import default_threads
from qwen35_local.chat.tokenizer import Tokenizer
from qwen35_local.engine import ChatRequest, Reuse
from qwen35_local.events import Done
from qwen35_local.generate import generate
from qwen35_local.gguf.convert import Types, convert

C: Any = importlib.import_module("llama_cpp.llama_cpp")
PROMPT, ANSWER, CONTEXT = 512, 64, 8192
RELEASED = 248320  # tokens of the released vocabulary
SHORTER = 600  # tokens of the long answer of `Llama`, which takes a tenth of a second for each of them by then


def gguf(path: Path) -> Path:
    """The model, made once."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory() as directory:
            released = write(Path(directory) / "mid", "mid", "BF16")
            (released / "tokenizer.json").write_text(json.dumps(plain_tokenizer(PRESETS["mid"].vocab)))
            for _ in convert(released, path, Types("q8_0", "mxfp4")):
                pass
    return path


class Meter:
    """Hears of every `llama_decode`, whoever calls it: tokens, and CPU seconds of the thread between two calls.

    CPU time, so that other programs on the machine do not count; the library's work is inside the calls.
    """

    def __init__(self) -> None:
        self.tokens, self.gaps = 0, list[float]()
        self.stamps: list[tuple[int, float, float]] = []  # tokens so far, wall and CPU seconds, after each call
        self._left = 0.0
        decode = C.llama_decode

        def metered(context: Any, batch: Any) -> int:
            self.gaps.append(time.thread_time() - self._left)
            status = decode(context, batch)
            self._left = time.thread_time()
            self.tokens += batch.n_tokens
            self.stamps.append((self.tokens, time.perf_counter(), time.process_time()))
            return status

        C.llama_decode = metered


class Ours:
    """The whole stack: request, session, our sampler, splitter, events."""

    def __init__(self, engine: LlamaCppEngine):
        self.engine = engine
        self.bias = dict.fromkeys(engine.tokenizer.eos_ids, -100.0)

    def answer(self, prompt: list[int], count: int) -> None:
        self.engine._sessions[0]._reset()  # pyright: ignore[reportAttributeAccessIssue]  a cold start, as the others make
        request = ChatRequest.of([], raw=tuple(prompt), temperature=0, max_tokens=count, logit_bias=self.bias)
        done = [event for event in self.engine.stream(request) if isinstance(event, Done)]
        assert done[0].usage.completion_tokens == count, done


class HighLevel:
    """`Llama.create_completion(stream=True)`, greedy."""

    def __init__(self, file: Path, threads: int, eos: set[int]):
        self.llama = llama_cpp.Llama(
            str(file), n_ctx=CONTEXT, n_batch=512, n_threads=threads, n_threads_batch=threads, verbose=False
        )
        self.bias = dict.fromkeys(eos, -100.0)

    def answer(self, prompt: list[int], count: int) -> None:
        self.llama.reset()
        options = {"max_tokens": count, "temperature": 0, "logit_bias": self.bias, "repeat_penalty": 1.0}
        for _ in self.llama.create_completion(prompt, stream=True, **options):
            pass


class Bare:
    """The least that a loop can do: decode, greedy sampler in C, decode."""

    def __init__(self, engine: LlamaCppEngine):
        params = C.llama_context_default_params()
        params.n_ctx, params.n_batch, params.n_ubatch = CONTEXT, 512, 512
        params.n_threads = params.n_threads_batch = engine.plan.threads
        self.context = C.llama_init_from_model(engine._model.pointer, params)
        self.sampler = C.llama_sampler_chain_init(C.llama_sampler_chain_default_params())
        C.llama_sampler_chain_add(self.sampler, C.llama_sampler_init_greedy())

    def answer(self, prompt: list[int], count: int) -> None:
        C.llama_memory_seq_rm(C.llama_get_memory(self.context), 0, -1, -1)
        for at in range(0, len(prompt), 512):
            part = prompt[at : at + 512]
            tokens = (ctypes.c_int32 * len(part))(*part)
            C.llama_decode(self.context, C.llama_batch_get_one(tokens, len(part)))
        one = (ctypes.c_int32 * 1)(C.llama_sampler_sample(self.sampler, self.context, -1))
        for _ in range(count - 1):
            C.llama_decode(self.context, C.llama_batch_get_one(one, 1))
            one[0] = C.llama_sampler_sample(self.sampler, self.context, -1)


def timed(engine: Any, meter: Meter, prompt: list[int]) -> dict[str, tuple[float, float]]:
    """(wall, CPU) tokens per second of prefill and decode, both up to the end of their last `llama_decode`."""
    meter.stamps.clear()
    start = (meter.tokens, time.perf_counter(), time.process_time())
    engine.answer(prompt, ANSWER)
    read = next(stamp for stamp in meter.stamps if stamp[0] - start[0] >= len(prompt))
    end = meter.stamps[-1]

    def rates(a: tuple[int, float, float], b: tuple[int, float, float]) -> tuple[float, float]:
        return (b[0] - a[0]) / (b[1] - a[1]), (b[0] - a[0]) / (b[2] - a[2])

    return {"prefill": rates(start, read), "decode": rates(read, end)}


def speeds(engines: dict[str, Any], meter: Meter, prompt: list[int], repeats: int) -> dict[str, Any]:
    """Median tokens per second of each, and the median by repeat of ours to the others, in wall and in CPU time."""
    runs: dict[str, list[dict[str, tuple[float, float]]]] = {name: [] for name in engines}
    for engine in engines.values():
        engine.answer(prompt[:64], 8)
    names = list(engines)
    for repeat in range(repeats):
        for name in names[repeat % len(names) :] + names[: repeat % len(names)]:  # nobody is always first
            runs[name].append(timed(engines[name], meter, prompt))
    found: dict[str, Any] = {"tokens_per_second": {}, "ratios": {}}
    for phase in ("prefill", "decode"):
        rates = {name: round(statistics.median(run[phase][0] for run in runs[name]), 1) for name in names}
        found["tokens_per_second"][phase] = rates
        for other in names[1:]:
            pairs = list(zip(runs["ours"], runs[other], strict=True))
            for index, clock in enumerate(("", " (CPU time)")):
                ratio = statistics.median(mine[phase][index] / theirs[phase][index] for mine, theirs in pairs)
                found["ratios"][f"{phase} ours / {other}{clock}"] = round(ratio, 3)
    return found


def overhead(engine: Any, meter: Meter, prompt: list[int], count: int) -> dict[str, float]:
    """CPU milliseconds per token outside `llama_decode`, in the first and the last tenth of an answer."""
    meter.gaps.clear()
    engine.answer(prompt, count)
    gaps, tenth = meter.gaps[2:], count // 10
    return {
        "beginning": round(1000 * statistics.mean(gaps[:tenth]), 3),
        "end": round(1000 * statistics.mean(gaps[-tenth:]), 3),
    }


class Noise:
    """A session whose logits are there already, so that what is timed is the rest of an answer."""

    def __init__(self, vocabulary: int):
        self.rows = np.random.default_rng(0).normal(size=(7, vocabulary)).astype(np.float32)
        self.rows[:, 256:] -= 20  # bytes are said, and so is nothing that would end the answer
        self.said = 0

    def sync(self, ids: Sequence[int]) -> Generator[tuple[int, int], None, Reuse]:
        yield len(ids), len(ids)
        return Reuse(0, len(ids))

    def logits(self) -> np.ndarray:
        return self.rows[self.said % len(self.rows)]

    def advance(self, token: int) -> None:
        self.said += 1


def stack(vocabulary: int, count: int = 1000) -> dict[str, float]:
    """CPU milliseconds per token of sampler, token loop, detokenizer and events over so many logits."""
    tokenizer = Tokenizer(json.dumps(plain_tokenizer(vocabulary)))
    found = {}
    for name, options in (("greedy", {"temperature": 0}), ("the card's sampling", {"seed": 1, "thinking": False})):
        request = ChatRequest.of([], raw=(1, 2, 3), max_tokens=count, **options)
        start = time.thread_time()
        for _ in generate(Noise(vocabulary), request.raw, request, tokenizer, 2 * count):  # pyright: ignore[reportArgumentType]
            pass
        found[f"{name}, vocabulary {vocabulary}"] = round(1000 * (time.thread_time() - start) / count, 3)
    return found


def second_turn(ours: Ours, theirs: HighLevel, meter: Meter) -> dict[str, Any]:
    """Tokens read for the second turn of a chat of some 2,000 tokens with thinking, the first one's answer included;
    and how long it takes to have its state twice."""
    engine = ours.engine
    system = {"role": "system", "content": "All about foxes. " * 100}
    options = {"temperature": 0, "max_tokens": 60, "logit_bias": ours.bias}
    first = [system, {"role": "user", "content": "Tell me of the fox."}]
    answer = engine.complete(first, **options)
    request = ChatRequest.of([*first, answer.message, {"role": "user", "content": "And of the dog?"}], **options)
    prompts = [engine.prompt(ChatRequest.of(first)), engine.prompt(request)]
    common = next(at for at, (a, b) in enumerate(zip(*prompts, strict=False)) if a != b)
    before = meter.tokens
    done = next(event for event in engine.stream(request) if isinstance(event, Done))
    read: dict[str, Any] = {"ours": meter.tokens - before - (done.usage.completion_tokens - 1)}
    start = time.perf_counter()
    copied = engine.branch(engine._sessions[-1], prompts[1])
    read["a copy for a branch, ms"] = round(1000 * (time.perf_counter() - start), 1)
    assert copied.tokens > common - 64
    copied.close()
    theirs.llama.reset()
    for turn, prompt in enumerate(prompts):
        before = meter.tokens
        theirs.llama.create_completion(list(prompt), max_tokens=60, temperature=0, logit_bias=theirs.bias)
        read["high-level"] = meter.tokens - before - 59
        assert turn == 1 or read["high-level"] == len(prompt)
    return {"prompt": len(prompts[1]), "new": len(prompts[1]) - common, **read}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer repeats and a shorter long answer")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--threads", type=int, default=default_threads(physical_cores()))
    parser.add_argument("--file", type=Path, default=Path(tempfile.gettempdir()) / "qwen35-bench" / "mid-mxfp4.gguf")
    args = parser.parse_args()
    file = gguf(args.file)
    prompt = np.random.default_rng(0).integers(0, 256, PROMPT).tolist()
    long = 600 if args.quick else 4000
    with qwen35_local.open(file, context=CONTEXT, threads=args.threads) as engine:
        assert isinstance(engine, LlamaCppEngine)
        ours, bare = Ours(engine), Bare(engine)
        high = HighLevel(file, args.threads, set(engine.tokenizer.eos_ids))
        meter = Meter()
        found = speeds({"ours": ours, "bare": bare, "high-level": high}, meter, prompt, 3 if args.quick else 5)
        found["overhead_ms_per_token"] = {
            f"{name}, {count} tokens": overhead(one, meter, prompt[:32], count)
            for name, one, count in (("ours", ours, long), ("bare", bare, long), ("high-level", high, SHORTER))
        }
        found["overhead_ms_per_token"]["our stack alone"] = stack(RELEASED)
        found["second_turn"] = second_turn(ours, high, meter)
    found |= {
        "model": f"{file.name}, {file.stat().st_size / 1e6:.0f} MB, vocabulary {PRESETS['mid'].vocab}",
        "machine": f"{platform.machine()} {platform.system()}, {args.threads} threads",
        "library": llama_cpp.__version__,
    }
    print(json.dumps(found, indent=1))
    if args.json:
        args.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
