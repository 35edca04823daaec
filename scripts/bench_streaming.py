"""Measure streamed experts on this machine: `python scripts/bench_streaming.py [--quick] [--json FILE] [SECTION…]`.

Every section prints ratios within its own run, with interleaved repetitions, because a shared disk and shared cores
make absolute numbers drift. Reads are direct (past the page cache) unless a line says otherwise. It takes 7 GB of disk.
"""

import argparse
import json
import mmap
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

sys.path.append(str(Path(__file__).parent.parent / "tests"))

from streaming.checkpoint import PRESETS, make
from streaming.runs import MappedReader, Timeline, drop, places, raw, resident, streamed

from qwen35_local.experts.layout import Extent
from qwen35_local.experts.reads import Target
from qwen35_local.experts.source import WORKERS, Source

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
    return {"configurations": checked, "different": wrong, "passed": not wrong}


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
    return {"block": EXPERT_397B, "threads": WORKERS, "gbps": rate, "of_raw": ratio, "passed": ratio >= 0.9}


def decode(args: argparse.Namespace) -> dict[str, Any]:
    """Resident and streamed token by token, in turns; direct reads from the packed store, a quarter of the slots."""
    path, p = make(args.dir / "decode", "decode"), PRESETS["decode"]
    warm, turns, tokens = (24, 3, 6) if args.quick else (48, 6, 10)
    found: dict[str, Any] = {}
    model = resident(path)
    for lookahead in (0, 2):
        with streamed(path, p.experts // 4, lookahead=lookahead) as (other, stream):
            sides = {"resident": Timeline(model), "streamed": Timeline(other)}
            seconds: dict[str, list[float]] = {name: [] for name in sides}
            for side in sides.values():
                side.decode(IDS[:warm])
            before = stream.totals()
            for turn in range(turns):
                ids = IDS[warm + turn * tokens : warm + (turn + 1) * tokens]
                same = []
                for name, side in sides.items():
                    logits, took = side.decode(ids)
                    seconds[name].append(took / tokens)
                    same.append(logits)
                assert all(np.array_equal(a, b) for a, b in zip(*same, strict=True))
            totals = stream.totals() - before
        record = stream.banks[0].layout.expert_nbytes // 4096 * 4096
        sample = places(path, record, 200, 5)
        bandwidth = record * len(sample) / raw(sample, record, WORKERS)
        per_token = totals.nbytes / (turns * tokens)
        compute, took = (float(np.median(seconds[name])) for name in ("resident", "streamed"))
        reading = per_token / bandwidth
        speed = float(np.median(np.array(seconds["resident"]) / np.array(seconds["streamed"])))
        found[f"lookahead {lookahead}"] = {
            **totals.report(sum(seconds["streamed"]) * tokens),
            "bytes_per_token": round(per_token),
            "resident_ms": 1e3 * compute,
            "streamed_ms": 1e3 * took,
            "raw_read_ms": 1e3 * reading,
            "of_resident": speed,
            "of_bound": took / max(compute, reading),
            "passed": speed >= 0.9 if reading < compute else took <= 1.15 * max(compute, reading),
        }
    found["passed"] = found["lookahead 2"]["passed"] or found["lookahead 0"]["passed"]
    return found


def prefill(args: argparse.Namespace) -> dict[str, Any]:
    """2K tokens at a tenth of the slots, against resident, token by token, and mmap."""
    path, p = make(args.dir / "long", "long"), PRESETS["long"]
    tokens, few = (512, 24) if args.quick else (2048, 48)
    ids, slots = IDS[:tokens], p.experts // 10
    wanted, compute = Timeline(resident(path)).feed(ids)
    with streamed(path, slots) as (model, stream):
        before = stream.totals()
        logits, took = Timeline(model).feed(ids)
        totals = stream.totals() - before
        experts = totals.hits + totals.misses  # of a sweep: distinct ones
        size = stream.banks[0].layout.expert_nbytes
    record = size // 4096 * 4096
    sample = places(path, record * 8, 100, 6)
    bandwidth = record * 8 * len(sample) / raw(sample, record * 8, WORKERS)
    bound = max(compute, totals.nbytes / bandwidth)
    with streamed(path, slots) as (model, _):
        one_by_one = Timeline(model).decode(IDS[:few])[1] / few * tokens
    drop(path)
    with streamed(path, slots, packed=False, direct=False, reader=MappedReader()) as (model, _):
        mapped = Timeline(model).decode(IDS[:few])[1] / few * tokens
    return {
        "tokens": tokens,
        "equal": bool(np.array_equal(logits, wanted)),
        "bytes_read": totals.nbytes,
        "unique_experts_bytes": experts * size,
        "seconds": took,
        "resident_seconds": compute,
        "read_bound_seconds": totals.nbytes / bandwidth,
        "of_bound": took / bound,
        "token_by_token_factor": one_by_one / took,
        "mmap_factor": mapped / took,
        "passed": took <= 1.2 * bound and totals.nbytes <= experts * size,
    }


def memory(args: argparse.Namespace) -> dict[str, Any]:
    """Peak resident memory of fresh processes under several budgets, a 4K prompt and 300 tokens each."""
    path = make(args.dir / "long", "long")
    prompt, tokens = (1024, 50) if args.quick else (4096, 300)
    rows = []
    for budget in ("200MB", "400MB") if args.quick else ("280MB", "330MB", "400MB", "580MB"):
        command = [sys.executable, __file__, "--child", str(path), budget, str(prompt), str(tokens)]
        said = subprocess.run(command, capture_output=True, text=True, check=False)
        rows.append(
            json.loads(said.stdout) if said.returncode == 0 else {"budget": budget, "error": said.stderr[-300:]}
        )
    ok = all(row.get("of_budget", 9) <= 1.03 for row in rows)
    return {"rows": rows, "checkpoint_bytes": sum(f.stat().st_size for f in path.glob("*.safetensors")), "passed": ok}


def child(path: Path, budget: str, prompt: int, tokens: int) -> None:
    """What `memory` runs: the session and plan of the engine, without a tokenizer."""
    from tiny import opened

    from qwen35_local.backends.memory import expert_layouts, open_stream, plan_memory
    from qwen35_local.backends.mlx_session import MlxSession
    from qwen35_local.backends.prefix import Landmarks
    from qwen35_local.config import Streaming
    from qwen35_local.model.qwen35 import Qwen35

    weights, config = opened(path)
    layouts = expert_layouts(path, weights, config.text)
    chosen = plan_memory(layouts, weights, config, budget, prompt + tokens)
    stream = open_stream(layouts, config.text, chosen, Streaming(direct=True, elastic=False))
    model = Qwen35(weights, config.text, stream.experts)
    stream.fill()
    session = MlxSession(model, Landmarks(-1, -1, -1), chosen.pass_tokens, stream)
    del weights
    for _ in session.sync(IDS[:prompt]):
        pass
    after_prompt = peak()
    for token in IDS[prompt : prompt + tokens]:
        session.logits()
        session.advance(token)
    session.logits()
    print(
        json.dumps(
            {
                "budget": chosen.budget,
                "planned": chosen.total,
                "slots": min(chosen.slots),
                "pass_tokens": chosen.pass_tokens,
                "peak_after_prompt": after_prompt,
                "peak": peak(),
                "of_budget": peak() / chosen.budget,
                **session.stats()["experts"],
            }
        )
    )


def peak() -> int:
    """Bytes of resident memory at the highest so far."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024


SECTIONS: dict[str, Callable[[argparse.Namespace], dict[str, Any]]] = {
    "equal": equal, "source": source, "decode": decode, "prefill": prefill, "memory": memory,
}  # fmt: skip


def main() -> None:
    if "--child" in sys.argv:
        path, budget, prompt, tokens = sys.argv[sys.argv.index("--child") + 1 :]
        child(Path(path), budget, int(prompt), int(tokens))
        return
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
    if args.json:
        args.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
