"""Measure streamed experts on this machine: `python scripts/bench_streaming.py [--quick] [--json FILE] [SECTION…]`.

Every section prints ratios within its own run, with interleaved repetitions, because a shared disk and shared cores
make absolute numbers drift. Reads are direct (past the page cache) unless a line says otherwise. It takes 7 GB of disk.
At the end comes one table of what was asked and what was found.
"""

import argparse
import json
import mmap
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

sys.path.append(str(Path(__file__).parent.parent / "tests"))

from streaming import memory as peaks
from streaming.checkpoint import PRESETS, make
from streaming.runs import MappedReader, Timeline, drop, places, raw, resident, streamed

from qwen35_local.config import Streaming
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
    """Resident and streamed token by token, in turns; direct reads from the packed store, a quarter of the slots. Cold
    is the first tokens, from an empty bank; the rest is warm. What counts is the default, which guesses if it pays."""
    path, p = make(args.dir / "decode", "decode"), PRESETS["decode"]
    cold, warm, turns, tokens = (4, 20, 3, 6) if args.quick else (6, 42, 6, 10)
    found: dict[str, Any] = {"asked": "0.90 of resident if reads < compute, else 1.15 of the larger"}
    model = resident(path)
    default = Streaming().lookahead
    for lookahead in (0, default):
        with streamed(path, p.experts // 4, lookahead=lookahead) as (other, stream):
            sides = {"resident": Timeline(model), "streamed": Timeline(other)}
            seconds: dict[str, list[float]] = {name: [] for name in sides}
            first = {name: side.decode(IDS[:cold])[1] / cold for name, side in sides.items()}
            for side in sides.values():
                side.decode(IDS[cold : cold + warm])
            before = stream.totals()
            for turn in range(turns):
                begin = cold + warm + turn * tokens
                same = []
                for name, side in sides.items():
                    logits, took = side.decode(IDS[begin : begin + tokens])
                    seconds[name].append(took / tokens)
                    same.append(logits)
                assert all(np.array_equal(a, b) for a, b in zip(*same, strict=True))
            totals = stream.totals() - before
        size = stream.banks[0].layout.expert_nbytes
        bandwidth = raw_bandwidth(path, size, 200, 5)
        per_token = totals.nbytes / (turns * tokens)
        beside = read_beside(path, sides["resident"], IDS[: 2 * turns], size, per_token)
        compute, took = (float(np.median(seconds[name])) for name in ("resident", "streamed"))
        reading = per_token / bandwidth
        speed = float(np.median(np.array(seconds["resident"]) / np.array(seconds["streamed"])))
        of_bound = took / max(compute, reading)
        found[f"lookahead {lookahead}"] = {
            **totals.report(sum(seconds["streamed"]) * tokens),
            "bytes_per_token": round(per_token),
            "resident_ms": 1e3 * compute,
            "streamed_ms": 1e3 * took,
            "cold_resident_ms": 1e3 * first["resident"],
            "cold_streamed_ms": 1e3 * first["streamed"],
            "raw_read_ms": 1e3 * reading,
            "of_resident": speed,
            "of_bound": of_bound,
            "resident_beside_reads": beside,
            "found": f"{speed:.2f} of resident, {of_bound:.2f} of the bound: {1e3 * took:.0f} ms a token beside "
            f"{1e3 * compute:.0f}, reads {1e3 * reading:.0f}; cold {1e3 * first['streamed']:.0f}; resident while plain "
            f"threads read as much {beside:.2f}",
            "passed": speed >= 0.9 if reading < compute else of_bound <= 1.15,
        }
    without, row = found["lookahead 0"], found[f"lookahead {default}"]
    text = f"{row['found']}; without lookahead {without['of_resident']:.2f}"
    return found | {"found": text, "passed": row["passed"]}


def read_beside(path: Path, side: Timeline, ids: list[int], nbytes: int, per_token: float) -> float:
    """Resident speed while plain threads read as many bytes a token and nobody waits for them, as a share of that
    without: what reading alone costs the arithmetic of this machine."""
    block, shares = nbytes // 4096 * 4096, []
    for number, token in enumerate(ids):
        alone = side.feed([token])[1]
        sample = places(path, block, max(1, round(per_token / block)), 1000 + number)
        reader = threading.Thread(target=raw, args=(sample, block, WORKERS))
        reader.start()
        shares.append(alone / side.feed([token])[1])
        reader.join()
    return float(np.median(shares))


def raw_bandwidth(path: Path, nbytes: int, count: int, seed: int) -> float:
    """Bytes a second of plain direct reads of about `nbytes` each."""
    block = nbytes // 4096 * 4096
    sample = places(path, block, count, seed)
    return block * len(sample) / raw(sample, block, WORKERS)


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
    "equal": equal, "source": source, "decode": decode, "prefill": prefill, "memory": memory,
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
