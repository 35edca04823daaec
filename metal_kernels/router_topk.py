"""Top-k routing: which experts a token goes to, and with what weight.

    p = softmax(logits);  the k largest p, divided by their sum

logits [T, E] -> ids uint32 [T, k], ascending, and weights float32 [T, k]. Equal logits: the lower expert first.
"""

import mlx.core as mx

from .dispatch import Operation
from .launch import launch

EXPERTS_MAX, K_MAX = 1024, 32


def router_topk(logits: mx.array, k: int) -> tuple[mx.array, mx.array]:
    """Expert ids uint32 [T, k], ascending, and their weights float32 [T, k] for router logits [T, E]."""
    run = ROUTER.best() if logits.shape[1] <= EXPERTS_MAX and k <= K_MAX else router_topk_reference
    return run(logits, k)


def router_topk_metal(logits: mx.array, k: int) -> tuple[mx.array, mx.array]:
    """One dispatch, one simdgroup per token; at most 1,024 experts, a bit each in 32 lanes, and k of 32, one a lane."""
    T, E = logits.shape
    ids, weights = launch(
        "router_topk",
        "router_topk",
        inputs={"logits": logits},
        outputs={"ids": ((T, k), mx.uint32), "weights": ((T, k), mx.float32)},
        template={"E": E, "K": k},
        grid=(32, T, 1),
        threadgroup=(32, 1, 1),
    )
    return ids, weights


def router_topk_reference(logits: mx.array, k: int) -> tuple[mx.array, mx.array]:
    """The same in MLX operations; a NaN logit makes the weights of its row NaN.

    MLX's argpartition breaks ties by the lower index: on a CPU it compares the indices of equal values, on Metal it is
    a stable sort.
    """
    logits = logits.astype(mx.float32)
    ids = mx.sort(mx.argpartition(-logits, k - 1, axis=-1)[:, :k], axis=-1)
    chosen = mx.take_along_axis(logits, ids, axis=-1)
    return ids, mx.softmax(chosen - mx.max(logits, axis=-1, keepdims=True), axis=-1)


def _cases() -> list[tuple[mx.array, int]]:
    key = mx.random.key(0)
    return [(mx.random.normal((T, 512), key=key) * 3, 10) for T in (1, 5)]


ROUTER = Operation(
    name="router_topk",
    reference=router_topk_reference,
    ours=router_topk_metal,
    cases=_cases,
    tolerance=1e-5,
)
