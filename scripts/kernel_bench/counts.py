"""Counting what our kernels and MLX's do: dispatches, bytes, barriers."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import mlx.core as mx
import numpy as np
from metal_cpu import Counters, metal_on_cpu
from metal_cpu import mlx_kernels as stock
from metal_cpu.graph import dispatches

from metal_kernels import delta_inputs as inputs
from metal_kernels import expert_mlp as mlp
from metal_kernels import gated_delta as delta
from metal_kernels import router_topk as router
from metal_kernels.expert_bank import ExpertBank, Stack, random_bank


@dataclass
class Row:
    """One line of the table."""

    operation: str
    who: str
    dispatches: int
    device_bytes: int
    group_bytes: int  # what threadgroups ask for, as if no cache were shared between them
    least_bytes: int
    barriers: int | None = None
    simd_ops: int | None = None
    microseconds: float | None = None

    @property
    def ratio(self) -> float:
        return self.device_bytes / self.least_bytes


def ours(operation: str, least: int, function: Callable[..., Any], *arguments: Any) -> Row:
    """Count the kernels that `function` launches."""
    with metal_on_cpu("count") as launches:
        function(*arguments)
    return counted(operation, "ours", least, [launch.counters for launch in launches])


def counted(operation: str, who: str, least: int, counters: list[Counters], graph: Sequence[Any] = ()) -> Row:
    """Kernels that were run, and operations that were counted from a graph."""
    around = sum(d.device_bytes for d in graph)
    moved, asked = (sum(c.device_bytes(cache) for c in counters) + around for cache in (2 << 20, 0))
    barriers = sum(c.threadgroup_barriers for c in counters)
    simd_ops = sum(c.simd_ops + c.matrix_ops for c in counters)
    return Row(operation, who, len(counters) + len(graph), moved, asked, least, barriers, simd_ops)


def routing(T: int, E: int, K: int) -> list[Row]:
    logits = mx.random.normal((T, E))
    mx.eval(logits)
    least, name = T * (E * 4 + K * 8), f"router_topk T={T}"
    graph = dispatches(lambda x: _usual_router(x, K), logits)
    return [ours(name, least, router.router_topk_metal, logits, K), counted(name, "mlx", least, [], graph)]


def _usual_router(logits: mx.array, K: int) -> tuple[mx.array, mx.array]:
    """Softmax, partition, gather, renormalise: the short form, which leaves ties to chance."""
    p = mx.softmax(logits, axis=-1, precise=True)
    ids = mx.argpartition(p, -K, axis=-1)[..., -K:]
    chosen = mx.take_along_axis(p, ids, axis=-1)
    return ids, chosen / chosen.sum(axis=-1, keepdims=True)


def experts(mode: str, M: int, K: int, S: int, H: int, I: int) -> list[Row]:  # noqa: E741
    """M rows through K of S slots each."""
    one = random_bank(mode, 1, H, I)  # what is in the slots does not matter here
    bank = ExpertBank(_repeated(one.gate_up, S), _repeated(one.down, S))
    gate_up, down = _parts(bank.gate_up), _parts(bank.down)
    x = mx.random.normal((M, H)).astype(mx.bfloat16)
    slots = mx.argsort(mx.random.uniform(shape=(M, S), key=mx.random.key(M)), axis=-1)[:, :K].astype(mx.uint32)
    weights = mx.softmax(mx.random.normal((M, K)), axis=-1)
    mx.eval(x, slots, weights, gate_up, down)
    used = len(np.unique(np.array(slots)))
    least = sum(t.nbytes // S for t in gate_up + down) * used + 2 * x.nbytes + slots.nbytes + weights.nbytes
    name = f"expert_mlp {mode} M={M}"

    # MLX's matrix-vector kernels are run; the graph gives the operations around them
    rows = mx.repeat(mx.arange(M, dtype=mx.uint32)[:, None], K, axis=1)
    _, h, first = stock.gather_qmv(x, rows, slots, gate_up, mode, variant="count")
    pairs = mx.arange(M * K, dtype=mx.uint32).reshape(M, K)
    _, _, second = stock.gather_qmv(h[..., :I].reshape(M * K, I), pairs, slots, down, mode, variant="count")
    graph = dispatches(lambda x, slots, weights: mlp.expert_mlp_stock(x, slots, weights, bank), x, slots, weights)
    around = [d for d in graph if not {"GatherQMM", "Arange"} & set(d.operations)]
    return [
        ours(name, least, mlp.expert_mlp_metal, x, slots, weights, bank),
        counted(name, "mlx", least, [first, second], around),
    ]


def prefill(rows: int, E: int, N: int, H: int) -> Row:
    """MLX's grouped product of sorted rows, the one that a kernel of ours for prompts would have to beat: E experts
    [N, H] with so many rows each."""
    parts = _parts(random_bank("mxfp4", E, H, N // 2).gate_up)
    x = mx.random.normal((rows * E, H)).astype(mx.bfloat16)
    ids = mx.repeat(mx.arange(E, dtype=mx.uint32), rows)
    mx.eval(x, ids, parts)
    _, y, counters = stock.gather_qmm(x, ids, parts, "mxfp4", variant="count")
    least = sum(a.nbytes for a in (x, ids, y, *parts))
    return counted(f"expert_gemm {rows} rows each", "mlx", least, [counters])


def _parts(stack: Stack) -> list[mx.array]:
    return [t for t in (stack.weight, stack.scales, stack.biases) if t is not None]


def _repeated(stack: Stack, S: int) -> Stack:
    names = ("weight", "scales", "biases")
    tensors = {name: mx.repeat(t, S, axis=0) for name in names if (t := getattr(stack, name)) is not None}
    return replace(stack, **tensors)


def gates(T: int, Hk: int, Hv: int, D: int) -> list[Row]:
    """Convolution, SiLU, norms and gates; MLX's with every chain of element-wise operations in one kernel."""
    arguments = inputs.random_inputs(1, T, Hk, Hv, D, mx.bfloat16)
    mx.eval(*arguments[:7])
    least, name = sum(a.nbytes for a in arguments[:7]), f"delta_inputs T={T}"
    mine = inputs.delta_inputs_metal
    with metal_on_cpu("count"):
        least += sum(a.nbytes for a in mine(*arguments))
    stock_form: Callable[..., Any] = inputs.delta_inputs_reference
    graph = dispatches(lambda *a: stock_form(*a, Hk), *arguments[:7])
    return [ours(name, least, mine, *arguments), counted(name, "mlx", least, [], graph)]


def recurrence(T: int, Hk: int, Hv: int, D: int) -> list[Row]:
    case = _delta_case(T, Hk, Hv, D)
    q, k, v, g, beta, state = case
    least = 2 * state.nbytes + sum(a.nbytes for a in case[:5]) + v.nbytes
    name = f"gated_delta T={T}"
    kinds = ["gated_delta_seq"] if T < 8 else ["gated_delta_seq", "gated_delta_fused_chunk"]
    mlx = [
        counted(name, f"mlx {kind.removeprefix('gated_delta_')}", least, [
            stock.gated_delta(kind, q, k, v, mx.exp(g), beta, state, variant="count")[2]
        ], dispatches(mx.exp, g))
        for kind in kinds
    ]  # fmt: skip
    forms = [("ours", delta.gated_delta_metal)]
    forms += [] if T < 8 else [("ours chunked", delta.gated_delta_chunked_metal)]
    mine = []
    for who, form in forms:
        mine.append(ours(name, least, form, *case))
        mine[-1].who = who
    return [*mine, *mlx]


def rollback(T: int, Hk: int, Hv: int, D: int) -> list[Row]:
    case = _delta_case(T, Hk, Hv, D)
    least = (1 + T) * case[5].nbytes + sum(a.nbytes for a in case[:5]) + case[2].nbytes
    return [ours(f"gated_delta_steps T={T}", least, delta.gated_delta_steps_metal, *case)]


def _delta_case(T: int, Hk: int, Hv: int, D: int) -> list[mx.array]:
    q, k = (mx.random.normal((1, T, Hk, D)) / D for _ in range(2))
    v, g = mx.random.normal((1, T, Hv, D)), -mx.random.uniform(0, 0.5, (1, T, Hv))
    beta, state = mx.random.uniform(0, 1, (1, T, Hv)), mx.random.normal((1, Hv, D, D))
    mx.eval(q, k, v, g, beta, state)
    return [q, k, v, g, beta, state]


def table(rows: list[Row]) -> str:
    head = ("operation", "who", "dispatches", "MB moved", "x least", "x asked", "barriers", "simd ops")
    lines = ["{:26} {:16} {:>10} {:>10} {:>8} {:>8} {:>9} {:>9}".format(*head)]
    for r in rows:
        lines.append(
            f"{r.operation:26} {r.who:16} {r.dispatches:10} {r.device_bytes / 1e6:10.3f} {r.ratio:8.3f} "
            f"{r.group_bytes / r.least_bytes:8.3f} {r.barriers or 0:9} {r.simd_ops or 0:9}"
        )
    return "\n".join(lines)
