"""Independent answers in float64, and how far a result is from them."""

import mlx.core as mx
import numpy as np


def float64(a: mx.array | np.ndarray) -> np.ndarray:
    return np.array(a.astype(mx.float32) if isinstance(a, mx.array) else a).astype(np.float64)


def spread_error(result: mx.array, expected: mx.array | np.ndarray) -> float:
    """The largest error over the standard deviation of what was expected; infinite where there is NaN."""
    got, want = float64(result), float64(expected)
    assert got.shape == want.shape, f"{got.shape} and {want.shape}"
    if np.isnan(got).any():
        return float("inf")
    return float(np.abs(got - want).max() / want.std())


def delta_case(B: int, T: int, Hk: int, Hv: int, D: int, dtype: mx.Dtype, seed: int = 0) -> list[mx.array]:
    """q, k, v, g, beta, state as a model makes them: unit keys, q over sqrt(D), decays near 1, a state in use."""
    keys = iter(mx.random.split(mx.random.key(seed), 6))
    q, k = (mx.random.normal((B, T, Hk, D), key=next(keys)) for _ in range(2))
    q = q / mx.linalg.norm(q, axis=-1, keepdims=True) * D**-0.5
    k = k / mx.linalg.norm(k, axis=-1, keepdims=True)
    v = mx.random.normal((B, T, Hv, D), key=next(keys))
    g = mx.log(mx.random.uniform(0.6, 1.0, (B, T, Hv), key=next(keys)))
    beta = mx.random.uniform(0, 1, (B, T, Hv), key=next(keys))
    state = mx.random.normal((B, Hv, D, D), key=next(keys)) * 0.1
    case = [*(x.astype(dtype) for x in (q, k, v)), g, beta, state]
    mx.eval(case)
    return case


def delta_float64(
    q: mx.array, k: mx.array, v: mx.array, g: mx.array, beta: mx.array, state: mx.array
) -> tuple[np.ndarray, np.ndarray]:
    """The recurrence of the gated delta rule, token by token: (o [B, T, Hv, Dv], state [B, Hv, Dv, Dk])."""
    o, states = delta_states_float64(q, k, v, g, beta, state)
    return o, states[:, -1]


def delta_states_float64(
    q: mx.array, k: mx.array, v: mx.array, g: mx.array, beta: mx.array, state: mx.array
) -> tuple[np.ndarray, np.ndarray]:
    """o, and the state after every token [B, T, Hv, Dv, Dk]."""
    q_, k_, v_, g_, beta_, S = (float64(x) for x in (q, k, v, g, beta, state))
    heads = v_.shape[2] // k_.shape[2]
    q_, k_ = np.repeat(q_, heads, axis=2), np.repeat(k_, heads, axis=2)
    o, states = np.zeros(v_.shape), []
    for t in range(v_.shape[1]):
        S = S * np.exp(g_[:, t])[:, :, None, None]
        u = beta_[:, t][:, :, None] * (v_[:, t] - np.einsum("bhvk,bhk->bhv", S, k_[:, t]))
        S = S + np.einsum("bhv,bhk->bhvk", u, k_[:, t])
        o[:, t] = np.einsum("bhvk,bhk->bhv", S, q_[:, t])
        states.append(S)
    return o, np.stack(states, axis=1)
