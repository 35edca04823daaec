"""Times beside the bandwidth of a copy: how much of what the machine can move does a kernel move?"""

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import numpy as np

from metal_kernels.dispatch import Operation, Trial, Verdict, judge
from metal_kernels.expert_bank import ExpertBank
from metal_kernels.operations import OPERATIONS


@dataclass(frozen=True)
class Time:
    """One candidate of one operation. `share` is its bandwidth over that of a copy: the least bytes that the operation
    can move, read and written, over its time."""

    operation: str
    candidate: str
    outcome: str
    microseconds: float | None = None
    gigabytes_per_second: float | None = None
    share: float | None = None


def least_bytes(arguments: Iterable[Any], outputs: Iterable[mx.array]) -> int:
    """Every input and output moved once; of a bank of experts the slots that are named, an expert each."""
    arguments = list(arguments)
    total = sum(a.nbytes for a in [*arguments, *outputs] if isinstance(a, mx.array))
    for bank in (a for a in arguments if isinstance(a, ExpertBank)):
        named = next(a for a in arguments if isinstance(a, mx.array) and a.dtype == mx.uint32)
        total += sum(t.nbytes // len(t) for t in tensors(bank)) * len(np.unique(np.array(named)))
    return total


def tensors(bank: ExpertBank) -> Iterator[mx.array]:
    for stack in (bank.gate_up, bank.down):
        yield from (t for t in (stack.weight, stack.scales, stack.biases) if t is not None)


def copy_bandwidth(nbytes: int = 1 << 28, repeats: int = 10) -> float:
    """Bytes read and written per second by adding one to a large array."""
    x = mx.zeros((nbytes,), mx.uint8)
    mx.eval(x + 1)
    start = time.perf_counter()
    for _ in range(repeats):
        mx.eval(x + 1)
    return repeats * 2 * nbytes / (time.perf_counter() - start)


def rows(verdict: Verdict, nbytes: int, bandwidth: float) -> list[Time]:
    """The trials of one operation, which has to move so many bytes on a machine of this bandwidth."""

    def row(trial: Trial) -> Time:
        if trial.microseconds is None:
            return Time(verdict.operation, trial.candidate, f"{trial.outcome}: {trial.reason}")
        rate = nbytes / trial.microseconds * 1e6
        return Time(verdict.operation, trial.candidate, trial.outcome, trial.microseconds, rate / 1e9, rate / bandwidth)

    return [row(trial) for trial in verdict.trials]


def timed(operations: Iterable[Operation] = OPERATIONS, bandwidth: float | None = None) -> list[Time]:
    """Every candidate of every operation at its real shapes, on Metal, after a copy (measured unless given)."""
    bandwidth = bandwidth or copy_bandwidth()
    found = []
    for operation in operations:
        case = operation.cases()[-1]
        outputs = operation.reference(*case)
        moved = least_bytes(case, [outputs] if isinstance(outputs, mx.array) else outputs)
        found += rows(judge(operation), moved, bandwidth)
    return [Time("copy", "mlx", "verified", None, bandwidth / 1e9, 1.0), *found]


def table(times: list[Time]) -> str:
    lines = ["{:24} {:24} {:>10} {:>8} {:>8}  {}".format("operation", "who", "us", "GB/s", "of copy", "")]
    for t in times:
        numbers = [
            "" if x is None else f"{x:{form}}"
            for x, form in ((t.microseconds, ".1f"), (t.gigabytes_per_second, ".1f"), (t.share, ".2f"))
        ]
        lines.append(
            "{:24} {:24} {:>10} {:>8} {:>8}  {}".format(t.operation, t.candidate, *numbers, t.outcome).rstrip()
        )
    return "\n".join(lines)
