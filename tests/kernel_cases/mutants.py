"""Automatic mistakes in our own kernels: at least 95 % must be found, and every survivor must have its reason here.

Each mutant runs in a process of its own, on small awkward shapes: numbers against float64 and counted traffic first,
then other schedules, then the sanitizers.
"""

import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from importlib import resources
from pathlib import Path

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
CHECKS = [
    {"variant": "count"},
    {"order": "reverse"},
    {"order": "shuffled", "seed": 5},
    {"variant": "thread"},
    {"variant": "address"},
]

# Mutants that no test can tell from the kernel, and why. Keys are lines as in str(Mutant), without the number.
EQUIVALENT: dict[str, str] = {
    **dict.fromkeys(
        (
            "constexpr int HELD = (E + SIMD - 1) / SIMD; // experts per lane  ->  "
            "constexpr int HELD = (E + SIMD + 1) / SIMD; // experts per lane",
            "constexpr int HELD = (E + SIMD - 1) / SIMD; // experts per lane  ->  "
            "constexpr int HELD = (E + SIMD - 1) * SIMD; // experts per lane",
            "for (int i = 0; i < HELD; i++) {  ->  for (int i = 0; i <= HELD; i++) {",
        ),
        "room for more experts than there are: those past E are not free, so never looked at",
    ),
    "const bool free = expert < E && !(taken >> i & 1);  ->  const bool free = expert <= E && !(taken >> i & 1);": (
        "expert E is what a lane with nothing to offer says too"
    ),
    "if (lane == 0) {  ->  if (lane == 1) {": "one lane writes, whichever: all have the same",
    "return x + simd_shuffle_xor(x, 2);  ->  return x + simd_shuffle_xor(x, 3);": (
        "lanes 2 and 3 of a quad hold the same after the first step"
    ),
    "W.thread_elements()[j] = (token < count ? float(v[values + j]) : 0.0f) - grown * KS.thread_elements()[j];  ->  "
    "W.thread_elements()[j] = (token < count ? float(v[values + j]) : 0.5f) - grown * KS.thread_elements()[j];": (
        "a token past the end has no key: its update goes nowhere"
    ),
    "betas[lane] = real ? float(beta[(at + lane) * HV + head]) : 0.0f;  ->  "
    "betas[lane] = real ? float(beta[(at + lane) * HV + head]) : 0.5f;": (
        "a token past the end has no key: its update goes nowhere"
    ),
    "for (uint j = 0; j < i; j++) column[i] -= solve[i * TILE + j] * column[j];  ->  "
    "for (uint j = 0; j <= i; j++) column[i] -= solve[i * TILE + j] * column[j];": "the diagonal of A is 0",
    "const float e = lane < K ? exp(best - largest) : 0.0f;  ->  "
    "const float e = lane <= K ? exp(best - largest) : 0.0f;": "the best of lane K is -infinity, its exponential 0",
}


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


def run_cases(file: str, text: str, options: dict) -> tuple[str, list[list[int]]]:
    """What is wrong with the first case that is wrong, and the work that each case took."""
    parsed = launch.parse(text)
    launch.sources = {file: parsed}.__getitem__
    work: list[list[int]] = []
    for case in CASES[file]:
        with metal_on_cpu(**options) as launches:
            error = case()
        if not error < WRONG:
            return f"error {error:.1e}", work
        work.append([_work(one) for one in launches])
    return "", work


def _work(one: Launch) -> int:
    """Bytes as asked for by threads, and operations: more work for the same result must not pass."""
    c = one.counters
    return sum(t.read + t.written for t in c.traffic.values()) + c.simd_ops + c.matrix_ops + c.threadgroup_barriers


def _run_in(folder: str | None, file: str, text: str, options: dict) -> tuple[str, list[list[int]]]:
    if folder is not None:
        use_scratch(Path(folder))
    return run_cases(file, text, options)


def run_mutant(folder: str | None, file: str, text: str, options: dict) -> tuple[str, list[list[int]]]:
    """`run_cases` in a process that a mutant may crash or hang."""
    try:
        return run_alone(_run_in, folder, file, text, options, cpu_seconds=CPU_SECONDS)
    except (Died, Fault, CompileError, RuntimeError, ValueError) as error:
        return f"{type(error).__name__}: {str(error)[:80]}", []


preload(__name__)


def verdicts(file: str, chosen: slice, checks: list[dict]) -> Iterator[tuple[Mutant, str]]:
    """Each mutant of a file, and who found it; empty for a survivor."""
    original, expected = (resources.files("metal_kernels") / f"{file}.metal").read_text(), []
    with tempfile.TemporaryDirectory() as folder:
        for options in checks:
            complaint, work = run_mutant(None, file, original, options)
            assert complaint == "", f"the kernel itself fails {options}: {complaint}"
            if options.get("variant") == "count":
                expected = work
        for mutant in mutants(original)[chosen]:
            found = ""
            for options in checks:
                found, work = run_mutant(folder, file, mutant.text, options)
                if not found and options.get("variant") == "count" and work != expected:
                    more = any(a > b for a, b in zip(_flat(work), _flat(expected), strict=False))
                    found = "it does more" if more or len(_flat(work)) != len(_flat(expected)) else ""
                if found:
                    break
            yield mutant, found


def _flat(lists: list[list[int]]) -> list[int]:
    return [x for some in lists for x in some]


def survivors(file: str, chosen: slice, checks: list[dict] = CHECKS) -> tuple[int, list[str]]:
    """How many mutants were made, and which were not found and have no explanation."""
    total, left, explained = 0, [], 0
    for mutant, found in verdicts(file, chosen, checks):
        total += 1
        print(f"{file} {mutant}: {found or 'SURVIVES'}", flush=True)
        if not found:
            explained += (known := str(mutant).split(": ", 1)[1] in EQUIVALENT)
            left += [] if known else [str(mutant)]
    print(f"{file}: {total} mutants, {total - len(left) - explained} found, {explained} explained, {len(left)} not")
    return total, left


def lines(file: str) -> set[str]:
    original = (resources.files("metal_kernels") / f"{file}.metal").read_text()
    return {str(mutant).split(": ", 1)[1] for mutant in mutants(original)}
