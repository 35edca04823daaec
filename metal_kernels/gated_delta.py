"""Gated delta rule: the linear attention of Qwen3.5, as one recurrence over a matrix state per value head.

    S_t = exp(g_t) S_{t-1} + beta_t (v_t - exp(g_t) S_{t-1} k_t) k_t^T        o_t = S_t q_t

Shapes: q, k [B, T, Hk, Dk]; v, o [B, T, Hv, Dv]; g (log of the decay, <= 0) and beta [B, T, Hv]; state [B, Hv, Dv, Dk].
Value head j reads query and key head j // (Hv / Hk). The state is float32 whatever the other types: its errors add up
over the whole context. Queries and keys come L2-normalised, queries scaled (see `model/delta_net.py`).

`recurrent` is the plain definition, `chunked` the same in matrix products over chunks of tokens (the WY form of the
DeltaNet papers, arXiv 2406.06484 and 2412.06464).
"""

import mlx.core as mx

from .dispatch import Operation
from .launch import launch

CHUNK = 16  # tokens; 32 took 1.05 to 2 times as long on a CPU, 64 more (this form is for there: Metal has kernels)
SHORT = 8  # tokens up to which a call counts as decode: one, or one with its speculated followers

Outputs = tuple[mx.array, mx.array]


def gated_delta(q: mx.array, k: mx.array, v: mx.array, g: mx.array, beta: mx.array, state: mx.array) -> Outputs:
    """o [B, T, Hv, Dv] in v's dtype and the state after the last token, float32."""
    if not _has_kernel(k, v):
        return gated_delta_reference(q, k, v, g, beta, state)
    operation = DECODE if q.shape[1] <= SHORT else PREFILL
    return operation.best()(q, k, v, g, beta, state)


def gated_delta_steps(q: mx.array, k: mx.array, v: mx.array, g: mx.array, beta: mx.array, state: mx.array) -> Outputs:
    """o and the state after every token, float32 [B, T, Hv, Dv, Dk]: to go back to a token, take its state."""
    if not _has_kernel(k, v):
        return gated_delta_steps_reference(q, k, v, g, beta, state)
    return STEPS.best()(q, k, v, g, beta, state)


def gated_delta_metal(q: mx.array, k: mx.array, v: mx.array, g: mx.array, beta: mx.array, state: mx.array) -> Outputs:
    """One dispatch, token by token with the state in registers; for decode and short T."""
    return _recurrent(q, k, v, g, beta, state, steps=False)


def gated_delta_steps_metal(
    q: mx.array, k: mx.array, v: mx.array, g: mx.array, beta: mx.array, state: mx.array
) -> Outputs:
    """The same, keeping the state after every token."""
    return _recurrent(q, k, v, g, beta, state, steps=True)


def _recurrent(
    q: mx.array, k: mx.array, v: mx.array, g: mx.array, beta: mx.array, state: mx.array, steps: bool
) -> Outputs:
    B, T, Hk, Dk = k.shape
    Hv, Dv = v.shape[2:]
    kept = (B, T, Hv, Dv, Dk) if steps else state.shape
    o, new_state = launch(
        "gated_delta",
        "gated_delta_recurrent",
        inputs={"q": q, "k": k, "v": v, "g": g, "beta": beta, "state": state, "tokens": T},
        outputs={"o": (v.shape, v.dtype), "new_state": (kept, mx.float32)},
        template={"TO": v.dtype, "HK": Hk, "HV": Hv, "DK": Dk, "DV": Dv, "STEPS": steps},
        grid=(32, Dv // 8, B * Hv),
        threadgroup=(32, 4, 1),
    )
    return o, new_state


def gated_delta_chunked_metal(
    q: mx.array, k: mx.array, v: mx.array, g: mx.array, beta: mx.array, state: mx.array
) -> Outputs:
    """One dispatch, eight tokens at a time on simdgroup matrices; for prefill."""
    B, T, Hk, Dk = k.shape
    Hv, Dv = v.shape[2:]
    simdgroups = next(n for n in (8, 4, 2, 1) if Dv // 8 % n == 0)  # no ragged threadgroups
    o, new_state = launch(
        "gated_delta",
        "gated_delta_chunked",
        inputs={"q": q, "k": k, "v": v, "g": g, "beta": beta, "state": state, "tokens": T},
        outputs={"o": (v.shape, v.dtype), "new_state": (state.shape, mx.float32)},
        template={"TO": v.dtype, "HK": Hk, "HV": Hv, "DK": Dk, "DV": Dv, "SIMDGROUPS": simdgroups},
        grid=(32, Dv // 8, B * Hv),
        threadgroup=(32, simdgroups, 1),
    )
    return o, new_state


def _has_kernel(k: mx.array, v: mx.array) -> bool:
    """Whether the kernels take heads of these sizes: whole matrices of 8 value rows, 16 to 256 keys in registers."""
    return v.shape[-1] % 8 == 0 and k.shape[-1] % 16 == 0 and k.shape[-1] <= 256


def gated_delta_reference(
    q: mx.array, k: mx.array, v: mx.array, g: mx.array, beta: mx.array, state: mx.array
) -> Outputs:
    """MLX operations: whichever form is faster for this many tokens."""
    if q.shape[1] <= SHORT:
        return recurrent(q, k, v, g, beta, state)
    return chunked(q, k, v, g, beta, state)


def gated_delta_steps_reference(
    q: mx.array, k: mx.array, v: mx.array, g: mx.array, beta: mx.array, state: mx.array
) -> Outputs:
    """The recurrence, one call a token."""
    outputs, states = [], []
    for t in range(q.shape[1]):
        now = slice(t, t + 1)
        o, state = recurrent(q[:, now], k[:, now], v[:, now], g[:, now], beta[:, now], state)
        outputs.append(o)
        states.append(state)
    return mx.concatenate(outputs, axis=1), mx.stack(states, axis=1)


def gated_delta_mlx(q: mx.array, k: mx.array, v: mx.array, g: mx.array, beta: mx.array, state: mx.array) -> Outputs:
    """MLX's own kernel, which takes the decay itself and gates in the type of q, k, v."""
    o, new_state = mx.fast.gated_delta_update(q, k, v, mx.exp(g).astype(v.dtype), beta.astype(v.dtype), state)
    return o, new_state


def recurrent(q: mx.array, k: mx.array, v: mx.array, g: mx.array, beta: mx.array, state: mx.array) -> Outputs:
    """Token by token, as the formula reads."""
    group = v.shape[2] // k.shape[2]
    q, k = (mx.repeat(x.astype(mx.float32), group, axis=2) for x in (q, k))  # [B, T, Hv, Dk]
    values, decay, beta = v.astype(mx.float32), mx.exp(g.astype(mx.float32)), beta.astype(mx.float32)
    outputs = []
    for t in range(v.shape[1]):
        k_t = k[:, t, :, None]  # [B, Hv, 1, Dk]
        state = state * decay[:, t, :, None, None]
        update = (values[:, t] - (state * k_t).sum(-1)) * beta[:, t, :, None]  # [B, Hv, Dv]
        state = state + update[..., None] * k_t
        outputs.append((state * q[:, t, :, None]).sum(-1))
    return mx.stack(outputs, axis=1).astype(v.dtype), state


def chunked(
    q: mx.array, k: mx.array, v: mx.array, g: mx.array, beta: mx.array, state: mx.array, *, chunk: int = CHUNK
) -> tuple[mx.array, mx.array]:
    """Chunk by chunk; inside a chunk of C tokens, with G the running sum of g and D_ij = exp(G_i - G_j) for i >= j:

        (I + A) [U | W] = beta [v | exp(G) k],  A = strictly lower part of beta k k^T D
        V = U - W S^T,   o = exp(G) q S^T + (q k^T D) V,   S <- exp(G_C) S + V^T (exp(G_C - G) k)

    Only the last line depends on the state, so all else is done for every chunk at once.
    """
    B, T, Hk, Dk = k.shape
    Hv, Dv = v.shape[2:]
    R, N, C = Hv // Hk, -(-T // chunk), chunk
    # [B, Hk, R, N, C, ...] with R the value heads of one key head. Padding has beta = 0 and g = 0: no effect.
    q, k = (_chunks(x, N, C).reshape(B, N, C, Hk, 1, Dk).transpose(0, 3, 4, 1, 2, 5) for x in (q, k))
    values = _chunks(v, N, C).reshape(B, N, C, Hk, R, Dv).transpose(0, 3, 4, 1, 2, 5)
    g, beta = (_chunks(x, N, C).reshape(B, N, C, Hk, R).transpose(0, 3, 4, 1, 2) for x in (g, beta))

    G = mx.cumsum(g, axis=-1)
    # Masked before exp: above the diagonal the difference is positive and would overflow.
    D = mx.exp(mx.where(mx.tri(C, dtype=mx.bool_), G[..., :, None] - G[..., None, :], -mx.inf))
    A = mx.where(mx.tri(C, k=-1, dtype=mx.bool_), (k @ k.swapaxes(-1, -2)) * D * beta[..., None], 0)
    inverse = unit_lower_inverse(A)  # [B, Hk, R, N, C, C]
    exp_G, G_end = mx.exp(G)[..., None], G[..., -1:]
    U = inverse @ (values * beta[..., None])
    W = inverse @ (k * (beta[..., None] * exp_G))
    attention = (q @ k.swapaxes(-1, -2)) * D
    queries, keys, decay = q * exp_G, k * mx.exp(G_end - G)[..., None], mx.exp(G_end)[..., None]

    S, outputs = state.reshape(B, Hk, R, Dv, Dk).swapaxes(-1, -2), []  # [B, Hk, R, Dk, Dv]
    for n in range(N):
        V = U[:, :, :, n] - W[:, :, :, n] @ S
        outputs.append(queries[:, :, :, n] @ S + attention[:, :, :, n] @ V)
        S = decay[:, :, :, n] * S + keys[:, :, :, n].swapaxes(-1, -2) @ V
    o = mx.stack(outputs, axis=3).transpose(0, 3, 4, 1, 2, 5).reshape(B, N * C, Hv, Dv)
    return o[:, :T].astype(v.dtype), S.swapaxes(-1, -2).reshape(B, Hv, Dv, Dk)


def _chunks(x: mx.array, count: int, chunk: int) -> mx.array:
    """x [B, T, ...] as float32, zero-padded to count * chunk tokens."""
    padding = [(0, 0)] * x.ndim
    padding[1] = (0, count * chunk - x.shape[1])
    return mx.pad(x.astype(mx.float32), padding)


def unit_lower_inverse(A: mx.array) -> mx.array:
    """(I + A)^-1 for strictly lower triangular A [..., C, C], C a power of two.

    Blocks of 1, 2, 4, … are merged by [[P, 0], [L, R]]^-1 = [[P', 0], [-R' L P', R']]: log2(C) rounds of products of
    true inverses. (A product of I + A^(2^i) has as few rounds, but its powers overflow where keys are alike.)
    """
    *lead, C, _ = A.shape
    inverse, size = mx.ones((*lead, C, 1, 1), dtype=A.dtype), 1
    while size < C:
        count = C // (2 * size)
        blocks = A.reshape(*lead, count, 2 * size, count, 2 * size)
        lower = mx.stack([blocks[..., i, size:, i, :size] for i in range(count)], axis=-3)
        inverse = inverse.reshape(*lead, count, 2, size, size)
        P, R = inverse[..., 0, :, :], inverse[..., 1, :, :]
        top = mx.concatenate([P, mx.zeros_like(P)], axis=-1)
        inverse = mx.concatenate([top, mx.concatenate([-(R @ lower @ P), R], axis=-1)], axis=-2)
        size *= 2
    return inverse.reshape(A.shape)


def trial_cases(T: int, Hk: int = 16, Hv: int = 64) -> list[tuple[mx.array, ...]]:
    """Arguments of the real head size, 128 by 128; for trials and benchmarks."""
    keys = iter(mx.random.split(mx.random.key(T), 6))
    q, k = (mx.fast.rms_norm(mx.random.normal((1, T, Hk, 128), key=next(keys)), None, 1e-6) for _ in range(2))
    v = mx.random.normal((1, T, Hv, 128), key=next(keys))
    g = -mx.random.uniform(0, 0.5, (1, T, Hv), key=next(keys))
    beta = mx.random.uniform(0, 1, (1, T, Hv), key=next(keys))
    state = mx.random.normal((1, Hv, 128, 128), key=next(keys))
    return [(q / 128, k / 128**0.5, v, g, beta, state)]


DECODE = Operation(
    name="gated_delta.decode",
    reference=gated_delta_reference,
    ours=gated_delta_metal,
    cases=lambda: trial_cases(5) + trial_cases(1),
    tolerance=1e-4,
    stock={"mlx": gated_delta_mlx},
)
PREFILL = Operation(
    name="gated_delta.prefill",
    reference=gated_delta_reference,
    ours=gated_delta_chunked_metal,
    cases=lambda: trial_cases(13) + trial_cases(256),
    tolerance=1e-4,
    stock={"ours, token by token": gated_delta_metal, "mlx": gated_delta_mlx},
)
STEPS = Operation(
    name="gated_delta.steps",
    reference=gated_delta_steps_reference,
    ours=gated_delta_steps_metal,
    cases=lambda: trial_cases(4),
    tolerance=1e-4,
)
