"""Guessing ahead with the MTP head: tokens a pass and speed, on and off in one run, resident and streamed.

    python scripts/bench_speculation.py [--quick] [--json FILE] [--model DIR]... [--memory SIZE]

Every question is asked of every engine in turn, greedily; answers must be equal. Models are the miniature, whose head
is trained, and those named (of `make_checkpoint.py --preset mid`, say; a random head is never right, so auto must not
use it). `--memory` streams the experts of the models named. Decode speed excludes the first token.
"""

import argparse
import json
import platform
import re
import statistics
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))  # run as a script, not installed

from qwen35_local.backends.mlx import MlxEngine
from qwen35_local.checkpoint.locate import find_model
from qwen35_local.errors import MemoryPlanError
from scripts.miniature.items import read, some_of_each

CONTEXT = 2048
MODES = ("off", "1", "2", "3", "auto")


def measured(model: str, memory: str | int | None, questions: list[Any], most: int) -> dict[str, dict[str, float]]:
    """Mode -> tokens per second (median of questions), tokens per pass, and their ratios to mode off."""
    path = find_model(model)
    engines = {mode: MlxEngine(path, CONTEXT, memory=memory, speculate=mode) for mode in MODES}
    speeds: dict[str, list[float]] = {mode: [] for mode in MODES}
    try:
        for number, question in enumerate([questions[0], *questions]):  # the first warms up
            said = {}
            for mode, engine in engines.items():
                answer = engine.complete(question, temperature=0, max_tokens=most)
                said[mode] = answer.message
                if number:
                    speeds[mode].append(answer.done.stats.generation_tps)
            assert all(message == said["off"] for message in said.values()), "guessing ahead changed an answer"
        found = {}
        for mode, engine in engines.items():
            pairs = [a / b for a, b in zip(speeds[mode], speeds["off"], strict=True)]
            found[mode] = {
                "tokens_per_s": statistics.median(speeds[mode]),
                "ratio": statistics.median(pairs),
                "tokens_per_pass": engine._pace.report()["tokens_per_pass"] if engine._pace else 1.0,
                "depth": engine._pace.report()["depth"] if engine._pace else 0,
            }
        return found
    finally:
        for engine in engines.values():
            engine.close()


def least(model: str) -> int:
    """Bytes just above the floor of the plan, so that most experts are on disk."""
    try:
        MlxEngine(find_model(model), CONTEXT, memory=1, speculate="3")
    except MemoryPlanError as refused:
        if floor := re.search(r"at least ([\d.]+) MB", str(refused)):
            return int(float(floor[1]) * 1e6) + 5 * 10**5
    raise SystemExit(f"{model} is too large to be streamed here")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--model", action="append", default=[], help="another model (repeatable)")
    parser.add_argument("--memory", help="stream the experts of those models under this budget")
    args = parser.parse_args()
    items = [item for item in some_of_each(read(), 1) if item.thinking and "tool" not in item.family]
    questions = [list(item.messages) for item in items][: 4 if args.quick else 9]
    runs = {"miniature, resident": ("miniature", None), "miniature, streamed": ("miniature", least("miniature"))}
    for model in args.model:
        runs[f"{Path(model).name}, resident"] = (model, None)
        if args.memory:
            runs[f"{Path(model).name}, {args.memory}"] = (model, args.memory)
    results = {}
    print(f"{'':28} {'mode':5} {'tok/s':>8} {'ratio':>7} {'tokens a pass':>14}  settled on")
    for name, (model, memory) in runs.items():
        most = 40 if model == "miniature" else 24 if args.quick else 64
        results[name] = measured(model, memory, questions if model == "miniature" else questions[:3], most)
        for mode, row in results[name].items():
            print(
                f"{name:28} {mode:5} {row['tokens_per_s']:8.1f} {row['ratio']:7.2f} {row['tokens_per_pass']:14.2f}"
                f"  {row['depth']:.0f}"
            )
    if args.json:
        machine = {"machine": platform.platform(), "processor": platform.processor() or platform.machine()}
        args.json.write_text(json.dumps({**machine, "measured": results}, indent=1))


if __name__ == "__main__":
    main()
