"""How far every kernel is from float64, run on the CPU machine: the largest error over the output's spread."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import mlx.core as mx
from kernel_cases.oracles import experts_case, experts_oracle, inputs_oracle, router_oracle
from metal_cpu import metal_on_cpu
from metal_cpu.oracle import delta_case, delta_float64, delta_states_float64, spread_error

from metal_kernels.delta_inputs import delta_inputs_metal, random_inputs
from metal_kernels.expert_bank import GROUPS
from metal_kernels.expert_mlp import expert_mlp_metal
from metal_kernels.gated_delta import gated_delta_chunked_metal, gated_delta_metal, gated_delta_steps_metal
from metal_kernels.router_topk import router_topk_metal

TYPES = {"float32": mx.float32, "bfloat16": mx.bfloat16, "float16": mx.float16}
LENGTHS = (1, 2, 7, 63, 64, 65, 130)


@dataclass(frozen=True)
class Error:
    """`output` is the error of what has the activations' type, `state` of what is float32 whatever they are."""

    kernel: str
    output: float
    state: float | None = None


def errors(dtype: mx.Dtype, heads: tuple[int, int] = (2, 4)) -> list[Error]:
    """Over all lengths; the heads are 128 wide."""
    with metal_on_cpu():
        found = [Error("router_topk", max(_router(T, dtype) for T in LENGTHS))]
        for mode in GROUPS:
            found.append(Error(f"expert_mlp {mode}", max(_experts(mode, M, dtype) for M in (1, 2, 7, 8))))
        found.append(Error("delta_inputs", max(_inputs(T, heads, dtype) for T in LENGTHS)))
        for form in (gated_delta_metal, gated_delta_chunked_metal):
            both = [_delta(form, delta_case(1, T, *heads, 128, dtype)) for T in LENGTHS]
            found.append(Error(form.__name__, *(max(column) for column in zip(*both, strict=True))))
        found.append(Error("gated_delta_steps", *_steps(delta_case(1, 8, *heads, 128, dtype))))
        for form in (gated_delta_metal, gated_delta_chunked_metal):
            case = delta_case(1, 512, 1, 2, 128, dtype)
            case[3] = case[3] / 16  # decays near 1: early errors would still be there
            found.append(Error(f"{form.__name__}, 512 tokens", *_delta(form, case)))
    return found


def _router(T: int, dtype: mx.Dtype) -> float:
    logits = (mx.random.normal((T, 512), key=mx.random.key(T)) * 3).astype(dtype)
    return spread_error(router_topk_metal(logits, 10)[1], router_oracle(logits, 10)[1])


def _experts(mode: str, M: int, dtype: mx.Dtype) -> float:
    case = experts_case(mode, M, 10, 16, 1024, 256, dtype)
    return spread_error(expert_mlp_metal(*case), experts_oracle(*case))


def _inputs(T: int, heads: tuple[int, int], dtype: mx.Dtype) -> float:
    case = random_inputs(1, T, *heads, 128, dtype)
    return max(spread_error(a, b) for a, b in zip(delta_inputs_metal(*case), inputs_oracle(*case), strict=True))


def _delta(form: Callable, case: list[mx.array]) -> tuple[float, float]:
    o, state = form(*case)
    expected, expected_state = delta_float64(*case)
    return spread_error(o, expected), spread_error(state, expected_state)


def _steps(case: list[mx.array]) -> tuple[float, float]:
    o, states = gated_delta_steps_metal(*case)
    expected, expected_states = delta_states_float64(*case)
    return spread_error(o, expected), spread_error(states, expected_states)


def every_type() -> dict[str, list[dict[str, Any]]]:
    """The errors of all kernels, by the type of the activations."""
    return {name: [asdict(error) for error in errors(dtype)] for name, dtype in TYPES.items()}


def table(found: dict[str, list[dict[str, Any]]]) -> str:
    """One line a kernel, its error for every type of the activations; in brackets that of its float32 state."""
    line = "{:34}" + " {:>20}" * len(found)
    lines = [line.format("error / spread", *found)]
    for row in zip(*found.values(), strict=True):
        cells = [f"{e['output']:.1e}" + ("" if e["state"] is None else f" ({e['state']:.1e})") for e in row]
        lines.append(line.format(row[0]["kernel"], *cells))
    return "\n".join(lines)
