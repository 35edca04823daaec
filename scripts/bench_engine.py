"""Our engine against mlx-lm on one mid-size MXFP4 checkpoint, interleaved in one run (needs the [oracle] extra).

    python scripts/bench_engine.py [--quick] [--json FILE] [--checkpoint DIR]

Each repeat times both engines, in turn: prefill of 512 tokens, decode of 64 tokens after them. A ratio above 1 means
that ours is faster. Load time, time to first token and peak memory are taken in fresh processes.
"""

import argparse
import json
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import mlx.core as mx
import numpy as np
from make_checkpoint import PRESETS, SPECIAL_TOKENS, write

PROMPT, ANSWER = 512, 64


def checkpoint(path: Path) -> Path:
    """The mid-size checkpoint, converted by mlx-lm to MXFP4 with float32 activations; made once."""
    if not (path / "config.json").exists():
        from mlx_lm import convert  # pyright: ignore[reportMissingImports]

        with tempfile.TemporaryDirectory() as source:
            released = write(Path(source) / "mid", "mid", "BF16")
            tokenizer = json.dumps(plain_tokenizer(PRESETS["mid"].vocab))
            (released / "tokenizer.json").write_text(tokenizer)
            (released / "tokenizer_config.json").write_text('{"tokenizer_class": "PreTrainedTokenizerFast"}')
            convert(str(released), str(path), quantize=True, q_mode="mxfp4", q_group_size=32, q_bits=4, dtype="float32")
        (path / "tokenizer.json").write_text(tokenizer)  # saved again by transformers it has other ids
    return path


def plain_tokenizer(vocab: int) -> dict:
    """Bytes and control tokens: enough for an engine to open the checkpoint; the prompts here are token ids."""
    from tokenizers.pre_tokenizers import ByteLevel

    from qwen35_local.chat.tokenizer import REQUIRED

    first = vocab - SPECIAL_TOKENS
    alphabet = {piece: index for index, piece in enumerate(sorted(ByteLevel.alphabet()))}
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": first + i, "content": t, "special": True, **flags} for i, t in enumerate(REQUIRED)],
        "normalizer": {"type": "NFC"},
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
        "post_processor": None,
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": {"type": "BPE", "vocab": alphabet, "merges": []},
    }


def ours(path: Path) -> Callable[[list[int], int], tuple[float, float]]:
    """(prompt, answer length) -> seconds of prefill to the first token, seconds of decoding the rest."""
    import qwen35_local

    engine = qwen35_local.open(path)

    def time_it(prompt: list[int], count: int) -> tuple[float, float]:
        session = engine.open_session()
        started = time.perf_counter()
        for _ in session.sync(prompt):
            pass
        token = int(session.logits().argmax())
        first = time.perf_counter()
        for _ in range(count):
            session.advance(token)
            token = int(session.logits().argmax())
        return first - started, time.perf_counter() - first

    return time_it


def theirs(path: Path) -> Callable[[list[int], int], tuple[float, float]]:
    """The same through mlx-lm's own loop."""
    from mlx_lm import load  # pyright: ignore[reportMissingImports]
    from mlx_lm.generate import generate_step  # pyright: ignore[reportMissingImports]

    model = load(str(path))[0]

    def time_it(prompt: list[int], count: int) -> tuple[float, float]:
        started = time.perf_counter()
        steps = generate_step(mx.array(prompt), model, max_tokens=count + 1)
        next(steps)
        first = time.perf_counter()
        for _ in steps:
            pass
        return first - started, time.perf_counter() - first

    return time_it


ENGINES = {"ours": ours, "mlx_lm": theirs}


def cold(name: str, path: Path) -> dict[str, float]:
    """One fresh process: seconds from its start to a loaded model and to the first token of 20, peak RSS in MiB."""
    out = subprocess.run(
        [sys.executable, __file__, "--cold", name, "--checkpoint", str(path)],
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(out.stdout.splitlines()[-1])


def cold_main(name: str, path: Path) -> None:
    started = time.perf_counter()
    run = ENGINES[name](path)
    loaded = time.perf_counter() - started
    first, _ = run(prompt_of(20), 0)
    print(json.dumps({"load": loaded, "first_token": loaded + first, "rss": peak_rss()}))


def peak_rss() -> float:
    """MiB. On Linux getrusage would report the parent's peak if that was higher."""
    if sys.platform == "linux":
        return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2


def prompt_of(length: int) -> list[int]:
    p = PRESETS["mid"]
    return np.random.default_rng(length).integers(0, p.vocab - SPECIAL_TOKENS, length).tolist()


def spread(values: list[float]) -> str:
    return f"{statistics.median(values):8.2f} ({min(values):.2f}..{max(values):.2f})"


def main() -> None:
    parser = argparse.ArgumentParser(description="Our engine against mlx-lm on a mid-size MXFP4 checkpoint.")
    parser.add_argument("--quick", action="store_true", help="fewer repeats, shorter prompt and answer")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--checkpoint", type=Path, default=Path(tempfile.gettempdir()) / "qwen35-bench-mid-mxfp4")
    parser.add_argument("--cold", choices=ENGINES, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.cold:
        return cold_main(args.cold, args.checkpoint)
    path = checkpoint(args.checkpoint)
    prompt, count, repeats = (128, 16, 2) if args.quick else (PROMPT, ANSWER, 5)

    starts = {name: [cold(name, path) for _ in range(1 if args.quick else 3)] for name in ENGINES}
    engines = {name: make(path) for name, make in ENGINES.items()}
    speeds: dict[str, dict[str, list[float]]] = {name: {"prefill": [], "decode": []} for name in engines}
    for run in engines.values():
        run(prompt_of(prompt), 2)  # warm up
    for repeat in range(repeats):
        for name in list(engines) if repeat % 2 == 0 else reversed(engines):
            prefill, decode = engines[name](prompt_of(prompt), count)
            speeds[name]["prefill"].append(prompt / prefill)
            speeds[name]["decode"].append(count / decode)

    ratios = {}
    print(f"{platform.machine()}, mlx {version('mlx')}, prompt {prompt}, answer {count}, {repeats} repeats")
    for what in ("prefill", "decode"):
        pairs = [a / b for a, b in zip(speeds["ours"][what], speeds["mlx_lm"][what], strict=True)]
        ratios[what] = statistics.median(pairs)
        for name in engines:
            print(f"{what:12} {name:8} tok/s {spread(speeds[name][what])}")
        print(f"{what:12} ratio          {spread(pairs)}")
    for what, unit in (("load", "s"), ("first_token", "s"), ("rss", "MiB")):
        values = {name: [start[what] for start in starts[name]] for name in engines}
        ratios[what] = statistics.median(values["mlx_lm"]) / statistics.median(values["ours"])
        for name in engines:
            print(f"{what:12} {name:8} {unit:5} {spread(values[name])}")
    if args.json:
        args.json.write_text(json.dumps({"ratios": ratios, "speeds": speeds, "starts": starts}, indent=1))
    return None


if __name__ == "__main__":
    main()
