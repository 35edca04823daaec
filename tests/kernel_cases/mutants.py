"""Automatic mistakes in our own kernels, and who finds each: at least 95 % must be found, the rest explained.

Each mutant runs in a process of its own, on small awkward shapes, under one check after the other until one objects:

    numbers    a plain run, against float64
    work       counted bytes, simd operations and barriers: more for the same result must not pass
    schedule   the same numbers with simdgroups and lanes in another order
    races      ThreadSanitizer
    bounds     AddressSanitizer and UndefinedBehaviorSanitizer

Whatever the check, the machine may object first (a write outside a buffer, divergence, a limit), the process may crash
or hang, and the compiler may refuse the text.
"""

import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial
from importlib import resources
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
from metal_cpu import CompileError, Fault, Launch, metal_on_cpu
from metal_cpu.alone import Died, preload, run_alone
from metal_cpu.compiler import use_scratch
from metal_cpu.mutate import Mutant, mutants
from metal_cpu.oracle import delta_case, delta_float64, delta_states_float64, spread_error

from metal_kernels import launch
from metal_kernels.delta_inputs import delta_inputs_metal, random_inputs
from metal_kernels.expert_bank import GROUPS
from metal_kernels.expert_mlp import expert_mlp_metal, expert_rows_metal
from metal_kernels.gated_delta import gated_delta_chunked_metal, gated_delta_metal, gated_delta_steps_metal
from metal_kernels.router_topk import router_topk_metal

from .oracles import experts_case, experts_oracle, inputs_oracle, router_oracle

CPU_SECONDS = 20  # a mutant that computes longer hangs (compiling is not counted)
CHECKS: list[tuple[str, dict[str, Any]]] = [
    ("numbers", {}),
    ("work", {"variant": "count"}),
    ("schedule", {"order": "reverse"}),
    ("schedule", {"order": "shuffled", "seed": 5}),
    ("races", {"variant": "thread"}),
    ("bounds", {"variant": "address"}),
]
SANITIZERS = ("races", "bounds")
FINDERS = ("compiler", "machine", "crash", *dict.fromkeys(name for name, _ in CHECKS))


@dataclass(frozen=True)
class Verdict:
    """A mutant as in str(Mutant), who found it (empty for a survivor), and what was wrong."""

    mutant: str
    by: str
    said: str = ""


def _router(T: int, E: int, k: int) -> float:
    logits = mx.round(mx.random.normal((T, E), key=mx.random.key(E)) * 4) / 2  # with ties
    logits[0, E - 1] = 50  # the last expert counts too
    logits[1, 3] = mx.nan
    ids, weights = (np.array(a) for a in router_topk_metal(logits, k))
    logits[1, 3] = -mx.inf  # how the kernel ranks NaN
    expected_ids, expected = router_oracle(logits, k)
    if not (np.array_equal(ids, expected_ids) and np.isnan(weights[1]).all()):
        return float("inf")
    return float(np.abs(np.delete(weights - expected, 1, axis=0)).max())


def _experts(mode: str, M: int) -> float:
    arguments = experts_case(mode, M, 3, 4, 576, 64)
    return spread_error(expert_mlp_metal(*arguments), experts_oracle(*arguments))


def _rows(R: int, S: int) -> float:
    x, slots, _, bank = experts_case("mxfp4", R, 1, S, 64, 64)
    y = expert_rows_metal(x, slots.flatten(), bank, 2)
    return spread_error(y, experts_oracle(x, slots, mx.ones(slots.shape), bank))


def _inputs(B: int, T: int, Hk: int, D: int) -> float:
    arguments = list(random_inputs(B, T, Hk, 4, D, mx.bfloat16))
    arguments[2][:, :D] = 0  # a head of zeros has no length
    pairs = zip(delta_inputs_metal(*arguments), inputs_oracle(*arguments), strict=True)
    return max(spread_error(got, want) for got, want in pairs)


def _delta(form: Callable, T: int, Dk: int, Dv: int) -> float:
    q, k, v, g, beta, state = delta_case(2, T, 2, 4, max(Dk, Dv), mx.float32)
    case = [q[..., :Dk], k[..., :Dk], v[..., :Dv], g, beta, state[:, :, :Dv, :Dk]]
    o, new = form(*case)
    expected, states = delta_states_float64(*case)
    expected_state = states if form is gated_delta_steps_metal else delta_float64(*case)[1]
    return max(spread_error(o, expected), spread_error(new, expected_state))


# file -> cases; each returns an error, and 2e-5 is wrong
CASES: dict[str, list[Callable[[], float]]] = {
    "router_topk": [partial(_router, 3, 33, 3), partial(_router, 3, 200, 32)],
    "expert_mlp": [
        *(partial(_experts, mode, 5) for mode in GROUPS),
        partial(_experts, "mxfp4", 1),
        partial(_experts, "mxfp4", 3),
        partial(_rows, 41, 7),
    ],
    "delta_inputs": [partial(_inputs, 2, 19, 2, 64), partial(_inputs, 2, 1, 1, 32)],
    "gated_delta": [
        partial(_delta, gated_delta_metal, 3, 32, 24),
        partial(_delta, gated_delta_steps_metal, 3, 32, 24),
        partial(_delta, gated_delta_chunked_metal, 19, 32, 24),
        partial(_delta, gated_delta_chunked_metal, 9, 32, 64),
    ],
}
WRONG = 2e-5


def run_cases(file: str, text: str, options: dict[str, Any]) -> tuple[str, list[int]]:
    """What is wrong with the first case that is wrong, and the work of every launch."""
    launch.sources = {file: launch.parse(text)}.__getitem__
    work: list[int] = []
    for case in CASES[file]:
        with metal_on_cpu(**options) as launches:
            error = case()
        if not error < WRONG:
            return f"error {error:.1e}", work
        work += [_work(one) for one in launches]
    return "", work


def _work(one: Launch) -> int:
    """Bytes as asked for by threads, and operations."""
    c = one.counters
    return sum(t.read + t.written for t in c.traffic.values()) + c.simd_ops + c.matrix_ops + c.threadgroup_barriers


def _run_in(folder: str | None, file: str, text: str, options: dict[str, Any]) -> tuple[str, list[int]]:
    if folder is not None:
        use_scratch(Path(folder))
    return run_cases(file, text, options)


preload(__name__)


@cache
def original(file: str) -> str:
    return (resources.files("metal_kernels") / f"{file}.metal").read_text()


@cache
def mutants_of(file: str) -> list[Mutant]:
    return mutants(original(file))


def judged(
    file: str, chosen: Sequence[Mutant], checks: Sequence[tuple[str, dict[str, Any]]] = CHECKS
) -> Iterator[Verdict]:
    """The verdict on each of some mutants of a file."""
    usual: list[int] | None = None
    for name, options in checks:
        by, said, work = _objection(None, file, original(file), options, name)
        assert not by, f"the kernel itself fails {name} {options}: {said}"
        usual = work if name == "work" else usual
    with tempfile.TemporaryDirectory() as folder:
        for mutant in chosen:
            by = said = ""
            for name, options in checks:
                by, said, work = _objection(folder, file, mutant.text, options, name)
                if not by and name == "work" and usual is not None and _more(work, usual):
                    by, said = "work", "it does more"
                if by:
                    break
            yield Verdict(str(mutant), by, said)


def _objection(
    folder: str | None, file: str, text: str, options: dict[str, Any], check: str
) -> tuple[str, str, list[int]]:
    """Who objects to a text under a check (empty if nobody does), why, and the work it took."""
    try:
        complaint, work = run_alone(_run_in, folder, file, text, options, cpu_seconds=CPU_SECONDS)
    except CompileError as error:
        return "compiler", _first_error(str(error)), []
    except Died as error:
        return "crash", str(error), []
    except (Fault, RuntimeError, ValueError) as error:
        return check if check in SANITIZERS else "machine", str(error).strip()[:80], []
    return check if complaint else "", complaint, work


def _more(work: list[int], usual: list[int]) -> bool:
    return len(work) != len(usual) or any(a > b for a, b in zip(work, usual, strict=True))


def _first_error(log: str) -> str:
    return next((line.partition("error: ")[2] for line in log.splitlines() if "error: " in line), log)[:80]
