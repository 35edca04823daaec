"""Measure streamed experts on this machine: `python scripts/bench_streaming.py [--quick] [--json FILE] [SECTION…]`.

Every section prints ratios within its own run, with interleaved repetitions, because a shared disk and shared cores
make absolute numbers drift. Reads are direct (past the page cache) unless a line says otherwise. It takes 7 GB of disk.
At the end comes one table of what was asked and what was found.
"""

import argparse
import json
import mmap
import sys
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

sys.path.append(str(Path(__file__).parent.parent / "tests"))

from streaming import decode as decoding
from streaming import memory as peaks
from streaming.checkpoint import PRESETS, make
from streaming.runs import MappedReader, Timeline, drop, places, raw, raw_bandwidth, resident, streamed

from qwen35_local.experts.layout import Extent
from qwen35_local.experts.reads import Target
from qwen35_local.experts.source import WORKERS, Source
from qwen35_local.model.qwen35 import Qwen35

EXPERT_397B = 6_684_672
IDS = np.random.default_rng(1).integers(0, 2000, 8192).tolist()


def equal(args: argparse.Namespace) -> dict[str, Any]:
    """Logits at every budget, to the bit."""
    path, E = make(args.dir / "quick", "quick"), PRESETS["quick"].experts

    def run(model) -> list[np.ndarray]:
        timeline = Timeline(model)
        return [timeline.feed(IDS[:30])[0], *timeline.decode(IDS[30:40])[0], timeline.feed(IDS[40:600])[0]]

    wanted = run(resident(path))
    checked, wrong = 0, []
    for share in (1.0, 0.5, 0.25, 0.1, 0.0):
        for packed, lookahead in ((True, 0), (False, 2)):
            with streamed(path, max(1, int(share * E)), packed, lookahead=lookahead) as (model, _):
                for state in ("cold", "warm"):
                    checked += 1
                    if not all(np.array_equal(a, b) for a, b in zip(run(model), wanted, strict=True)):
                        wrong.append(f"{share:.0%} packed={packed} lookahead={lookahead} {state}")
    return {
        "asked": "every configuration bit-equal to resident",
        "found": f"{checked - len(wrong)} of {checked}",
        "different": wrong,
        "passed": not wrong,
    }


def source(args: argparse.Namespace) -> dict[str, Any]:
    """The pool of readers against plain threads, same blocks, same places, interleaved."""
    path = make(args.dir / "decode", "decode")
    times: dict[str, list[float]] = {"raw": [], "ours": []}
    reader = Source(direct=True)
    count = 24 if args.quick else 64
    memory = memoryview(mmap.mmap(-1, EXPERT_397B * count))
    for turn in range(4 if args.quick else 8):
        # Other places for each, and turns about: what one has read, some cache below us may know.
        mine, theirs = (places(path, EXPERT_397B, count, 2 * turn + side) for side in (0, 1))
        targets = [
            Target(Extent(p.file, p.offset, EXPERT_397B, 0, 0), memory[i * EXPERT_397B : (i + 1) * EXPERT_397B], "x")
            for i, p in enumerate(mine)
        ]
        for name in ("raw", "ours") if turn % 2 else ("ours", "raw"):
            if name == "raw":
                times["raw"].append(raw(theirs, EXPERT_397B, WORKERS))
                continue
            start = perf_counter()
            reader.submit(targets).wait()
            times["ours"].append(perf_counter() - start)
    reader.close()
    rate = {name: EXPERT_397B * count / float(np.median(seconds)) / 1e9 for name, seconds in times.items()}
    ratio = rate["ours"] / rate["raw"]
    return {
        "asked": "0.90 of plain threads",
        "found": f"{ratio:.2f} ({rate['ours']:.2f} of {rate['raw']:.2f} GB/s)",
        "block": EXPERT_397B,
        "threads": WORKERS,
        "gbps": rate,
        "of_raw": ratio,
        "passed": ratio >= 0.9,
    }


def decode(args: argparse.Namespace) -> dict[str, Any]:
    """Token by token at a quarter of the slots, on this machine's disk."""
    return decoding.decode(make(args.dir / "decode", "decode"), IDS, PRESETS["decode"].experts // 4, args.quick)


def slow(args: argparse.Namespace) -> dict[str, Any]:
    """The same on slower disks, which some machines have and this one can pretend to."""
    return decoding.slow(make(args.dir / "decode", "decode"), IDS, PRESETS["decode"].experts // 4, args.quick)


def prefill(args: argparse.Namespace) -> dict[str, Any]:
    """2K tokens at a tenth of the slots, against resident, token by token, and mmap."""
    path, p = make(args.dir / "long", "long"), PRESETS["long"]
    tokens, few, turns = (512, 24, 1) if args.quick else (2048, 48, 2)
    ids, slots = IDS[:tokens], p.experts // 10
    model = resident(path)
    tries = [swept(path, model, ids, slots) for _ in range(turns)]
    best = min(tries, key=lambda found: found["of_bound"])
    with streamed(path, slots) as (other, _):
        one_by_one = Timeline(other).decode(IDS[:few])[1] / few * tokens
    drop(path)
    with streamed(path, slots, packed=False, direct=False, reader=MappedReader()) as (other, _):
        mapped = Timeline(other).decode(IDS[:few])[1] / few * tokens
    one_by_one, mapped = one_by_one / best["seconds"], mapped / best["seconds"]
    return {
        "asked": "1.2 of max(compute, reads); bytes at most distinct experts x size",
        "found": f"{', '.join(format(found['of_bound'], '.2f') for found in tries)}; {best['bytes_read'] / 1e9:.2f} of "
        f"{best['unique_experts_bytes'] / 1e9:.2f} GB; {one_by_one:.1f} times token by token, {mapped:.1f} times mmap",
        "tokens": tokens,
        "tries": tries,
        "token_by_token_factor": one_by_one,
        "mmap_factor": mapped,
        "passed": all(found["equal"] and found["bytes_read"] <= found["unique_experts_bytes"] for found in tries)
        and float(np.median([found["of_bound"] for found in tries])) <= 1.2,
    }


def swept(path: Path, model: Qwen35, ids: list[int], slots: int) -> dict[str, Any]:
    """A prompt through the resident model and through streamed experts, one after the other."""
    wanted, compute = Timeline(model).feed(ids)
    with streamed(path, slots) as (other, stream):
        logits, took = Timeline(other).feed(ids)
        totals, size = stream.totals(), stream.banks[0].layout.expert_nbytes
    reading = totals.nbytes / raw_bandwidth(path, 8 * size, 100, 6)
    return {
        "equal": bool(np.array_equal(logits, wanted)),
        "bytes_read": totals.nbytes,
        "unique_experts_bytes": (totals.hits + totals.misses) * size,  # a sweep counts distinct experts
        "seconds": took,
        "resident_seconds": compute,
        "read_bound_seconds": reading,
        "of_bound": took / max(compute, reading),
    }


def memory(args: argparse.Namespace) -> dict[str, Any]:
    """Peak resident memory of fresh processes under several budgets, a 4K prompt and 300 tokens each."""
    prompt, tokens = (1024, 50) if args.quick else (4096, 300)
    budgets = ("400MB", "580MB") if args.quick else ("280MB", "330MB", "400MB", "580MB")
    return peaks.memory(make(args.dir / "long", "long"), prompt, tokens, budgets)


SECTIONS: dict[str, Callable[[argparse.Namespace], dict[str, Any]]] = {
    "equal": equal, "source": source, "decode": decode, "slow": slow, "prefill": prefill, "memory": memory,
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure streamed experts on this machine.")
    parser.add_argument("sections", nargs="*", metavar="SECTION", help=f"of {', '.join(SECTIONS)} (default: all)")
    parser.add_argument("--quick", action="store_true", help="fewer repetitions")
    parser.add_argument("--dir", type=Path, default=Path("/tmp/qwen35-streaming"), help="where checkpoints are made")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    found = {}
    for name in args.sections or SECTIONS:
        found[name] = SECTIONS[name](args)
        print(f"{'ok  ' if found[name]['passed'] else 'MISS'} {name}: {json.dumps(found[name])}", flush=True)
    print("\n| section | asked | found | |\n| --- | --- | --- | --- |")
    for name, row in found.items():
        print(f"| {name} | {row['asked']} | {row['found']} | {'ok' if row['passed'] else '**missed**'} |")
    if args.json:
        args.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
