"""Guessing ahead with the MTP head: tokens a pass and speed, on and off in one run, resident and streamed.

    python scripts/bench_speculation.py [--quick] [--json FILE] [--directory DIR] [--right SHARE] [--slots SHARE]

Every prompt is given to every engine in turn, greedily; their tokens must be equal. Models are the miniature, whose
head is trained, and one of 0.5 G parameters in MXFP4 whose head is right for `--right` of the tokens by construction
(`context/foretold.py`): what its passes cost is real, how often it is right is not. Streamed, `--slots` of the
experts are in memory, and the others are read past the page cache. Decode speed excludes the first token.
"""

import argparse
import json
import platform
import re
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests"), str(ROOT / "scripts")]

import numpy as np  # noqa: E402

from qwen35_local.backends.mlx import MlxEngine  # noqa: E402
from qwen35_local.checkpoint.locate import find_model  # noqa: E402
from qwen35_local.config import Streaming  # noqa: E402
from qwen35_local.errors import MemoryPlanError  # noqa: E402
from scripts.context import foretold  # noqa: E402
from scripts.miniature.items import read, some_of_each  # noqa: E402

CONTEXT = 2048
MODES: tuple[str, ...] = ("off", "1", "2", "3", "auto")
COLUMNS = f"{'':20} {'mode':5} {'tok/s':>8} {'ratio':>7} {'tokens a pass':>14} {'ms a pass':>10} {'MB a token':>11}"


def answer(engine: MlxEngine, ids: Sequence[int], most: int) -> tuple[list[int], float]:
    """The greedy tokens after `ids`, at most `most`, and the seconds of all but the first."""
    session, said, end = engine.open_session(), [], engine.tokenizer.eos_ids
    for _ in session.sync(ids):
        pass
    began = 0.0
    while len(said) < most:
        token = int(session.logits()[: engine.tokenizer.size].argmax())
        began = began or perf_counter()
        said.append(token)
        if token in end:
            break
        session.advance(token)
    seconds = perf_counter() - began
    session.close()
    return said, seconds


def measured(
    path: Path, memory: int | None, prompts: Sequence[Sequence[int]], most: int
) -> dict[str, dict[str, float]]:
    """Mode -> tokens per second and their ratio to mode off (medians over prompts), tokens per pass, and so on."""
    how = Streaming(direct=True)
    engines = {mode: MlxEngine(path, CONTEXT, memory=memory, streaming=how, speculate=mode) for mode in MODES}
    speeds: dict[str, list[float]] = {mode: [] for mode in MODES}
    read_bytes: dict[str, int] = dict.fromkeys(MODES, 0)
    tokens = 0
    try:
        for number, ids in enumerate([prompts[0], *prompts]):  # the first warms up
            said: dict[str, list[int]] = {}
            for mode, engine in engines.items():
                before = bytes_read(engine)
                said[mode], seconds = answer(engine, ids, most)
                if number:
                    speeds[mode].append((len(said[mode]) - 1) / seconds)
                    read_bytes[mode] += bytes_read(engine) - before
            assert all(ids == said["off"] for ids in said.values()), "guessing ahead changed an answer"
            tokens += len(ids) + len(said["off"]) if number else 0
        found = {}
        for mode, engine in engines.items():
            pairs = [a / b for a, b in zip(speeds[mode], speeds["off"], strict=True)]
            report = engine._pace.report() if engine._pace else {"tokens_per_pass": 1.0, "depth": 0}
            found[mode] = {
                "tokens_per_s": statistics.median(speeds[mode]),
                "ratio": statistics.median(pairs),
                "least_ratio": min(pairs),
                "tokens_per_pass": report["tokens_per_pass"],
                "pass_ms": 1000 * report["tokens_per_pass"] / statistics.median(speeds[mode]),
                "read_mb": read_bytes[mode] / tokens / 1e6,
                "depth": report["depth"],
            }
        return found
    finally:
        for engine in engines.values():
            engine.close()


def bytes_read(engine: MlxEngine) -> int:
    """Of experts, so far."""
    return sum(bank.counters.nbytes for bank in engine.experts.banks) if engine.experts else 0


def budget(path: Path, share: float) -> int:
    """Bytes with which so much of the experts is in memory, with the head."""
    try:
        MlxEngine(path, CONTEXT, memory=1, speculate="3")
    except MemoryPlanError as refused:
        if floor := re.search(r"at least ([\d.]+) MB", str(refused)):
            with MlxEngine(path, CONTEXT, speculate="3") as engine:
                return int(float(floor[1]) * 1e6 + share * engine.plan.geometry.experts_nbytes)
    raise SystemExit(f"{path.name} is too large to be streamed here")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--directory", type=Path, help="where the model is made and kept (default: a temporary one)")
    parser.add_argument("--right", type=float, default=0.8, help="how often that model's head is right (default: 0.8)")
    parser.add_argument("--slots", type=float, default=0.25, help="share of experts in memory (default: 0.25)")
    args = parser.parse_args()
    items = [item for item in some_of_each(read(), 1) if item.thinking and "tool" not in item.family]
    with MlxEngine(find_model("miniature"), CONTEXT) as engine:
        taught = [list(engine.prompt(item.request)) for item in items[: 4 if args.quick else 9]]
    drawn = np.random.default_rng(0).integers(0, 8000, (2 if args.quick else 3, 64)).tolist()
    results: dict[str, Any] = {}
    print(f"{COLUMNS}  settled on", flush=True)
    with tempfile.TemporaryDirectory() as scratch:
        directory = args.directory or Path(scratch)
        directory.mkdir(parents=True, exist_ok=True)
        mid = foretold.make(directory / f"foretold-{args.right:g}", args.right)
        for name, path, prompts, most in (
            ("miniature", find_model("miniature"), taught, 40),
            ("mid-size", mid, drawn, 24 if args.quick else 96),
        ):
            for how, memory in (("resident", None), ("streamed", budget(path, args.slots))):
                rows = results[f"{name}, {how}"] = measured(path, memory, prompts, most)
                for mode, row in rows.items():
                    print(
                        f"{name + ', ' + how:20} {mode:5} {row['tokens_per_s']:8.1f} {row['ratio']:7.2f} "
                        f"{row['tokens_per_pass']:14.2f} {row['pass_ms']:10.1f} {row['read_mb']:11.2f}"
                        f"  {row['depth']:.0f}",
                        flush=True,
                    )
    if args.json:
        machine = {"machine": platform.platform(), "processor": platform.processor() or platform.machine()}
        args.json.write_text(json.dumps({**machine, "right": args.right, "measured": results}, indent=1))


if __name__ == "__main__":
    main()
