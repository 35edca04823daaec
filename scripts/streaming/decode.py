"""Decode of the streaming benchmark: a resident and a streamed model token by token, in turns."""

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from qwen35_local.config import Streaming
from qwen35_local.experts.source import WORKERS
from qwen35_local.model.qwen35 import Qwen35
from qwen35_local.model.stream import ExpertStream

from .runs import SlowReader, Timeline, places, raw, raw_bandwidth, resident, streamed

SLOW = (1.0, 0.4)  # GB/s: disks that need less time than the arithmetic here, and more


def decode(path: Path, ids: Sequence[int], slots: int, quick: bool) -> dict[str, Any]:
    """Direct reads from the packed store. Cold is the first tokens, from an empty bank; the rest is warm. What counts
    is the default, which guesses if it pays."""
    model, default = resident(path), Streaming().lookahead
    size = (4, 36, 3, 6) if quick else (6, 42, 6, 10)
    rows = {}
    for number, lookahead in enumerate((0, default)):
        with streamed(path, slots, lookahead=lookahead) as (other, stream):
            row, side = _turns(model, other, stream, ids, size)
            nbytes = stream.banks[0].layout.expert_nbytes
        bandwidth = raw_bandwidth(path, nbytes, 200, 5 + number)
        row["resident_beside_reads"] = _read_beside(path, side, ids[: 2 * size[2]], nbytes, row["bytes_per_token"])
        rows[f"lookahead {lookahead}"] = _judged(row, bandwidth)
    without, row = rows["lookahead 0"], rows[f"lookahead {default}"]
    return rows | {
        "asked": "0.90 of resident if reads < compute, else 1.15 of the larger",
        "found": f"{row['found']}; cold {row['cold_streamed_ms']:.0f}; without lookahead {without['of_resident']:.2f}; "
        f"resident while plain threads read as much {row['resident_beside_reads']:.2f}",
        "passed": row["passed"],
    }


def slow(path: Path, ids: Sequence[int], slots: int, quick: bool) -> dict[str, Any]:
    """The same with readers that deliver no more than a slower disk would."""
    model, default = resident(path), Streaming().lookahead
    rows: dict[str, dict[str, Any]] = {}
    for gbps in SLOW:
        for lookahead in (0, default):
            with streamed(path, slots, lookahead=lookahead, reader=SlowReader(gbps)) as (other, stream):
                row, _ = _turns(model, other, stream, ids, (4, 36, 3, 6) if quick else (6, 36, 5, 6))
            rows[f"{gbps} GB/s, lookahead {lookahead}"] = _judged(row, gbps * 1e9)
    defaults = [rows[f"{gbps} GB/s, lookahead {default}"] for gbps in SLOW]
    return rows | {
        "asked": "the same, of disks that are made slower",
        "found": "; ".join(f"{name}: {row['found']}" for name, row in rows.items()),
        "passed": all(row["passed"] for row in defaults),
    }


def _turns(
    model: Qwen35, other: Qwen35, stream: ExpertStream, ids: Sequence[int], size: tuple[int, int, int, int]
) -> tuple[dict[str, Any], Timeline]:
    """What `size` (cold tokens, warm ones, turns, tokens of a turn) found, and the resident side."""
    cold, warm, turns, tokens = size
    sides = {"resident": Timeline(model), "streamed": Timeline(other)}
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    first = {name: side.decode(ids[:cold])[1] / cold for name, side in sides.items()}
    for side in sides.values():
        side.decode(ids[cold : cold + warm])
    before = stream.totals()
    for turn in range(turns):
        begin = cold + warm + turn * tokens
        same = []
        for name, side in sides.items():
            logits, took = side.decode(ids[begin : begin + tokens])
            seconds[name].append(took / tokens)
            same.append(logits)
        assert all(np.array_equal(a, b) for a, b in zip(*same, strict=True))
    totals = stream.totals() - before
    row = {
        **totals.report(sum(seconds["streamed"]) * tokens),
        "bytes_per_token": totals.nbytes / (turns * tokens),
        "of_resident": float(np.median(np.array(seconds["resident"]) / np.array(seconds["streamed"]))),
    }
    for name in sides:
        row |= {f"{name}_ms": 1e3 * float(np.median(seconds[name])), f"cold_{name}_ms": 1e3 * first[name]}
    return row, sides["resident"]


def _judged(row: dict[str, Any], bandwidth: float) -> dict[str, Any]:
    """`row` beside what reading its bytes takes at `bandwidth` bytes a second."""
    compute, took, reading = row["resident_ms"], row["streamed_ms"], 1e3 * row["bytes_per_token"] / bandwidth
    of_bound = took / max(compute, reading)
    return row | {
        "raw_read_ms": reading,
        "of_bound": of_bound,
        "found": f"{row['of_resident']:.2f} of resident, {of_bound:.2f} of the bound ({took:.0f} ms a token, resident "
        f"{compute:.0f}, reads {reading:.0f})",
        "passed": row["of_resident"] >= 0.9 if reading < compute else of_bound <= 1.15,
    }


def _read_beside(path: Path, side: Timeline, ids: Sequence[int], nbytes: int, per_token: float) -> float:
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
