"""Both forms of the gated delta rule against a float64 loop that shares nothing with them but the formula."""

import mlx.core as mx
import numpy as np
import pytest

from metal_kernels.gated_delta import chunked, gated_delta, recurrent, unit_lower_inverse


def inputs(T: int, Hk: int = 2, Hv: int = 8, Dk: int = 16, Dv: int = 24, seed: int = 0, g_scale: float = 0.5) -> list:
    rng = np.random.default_rng([seed, T, Hk, Hv])
    q, k = rng.normal(size=(2, 1, T, Hk, Dk))
    q, k = (x / np.linalg.norm(x, axis=-1, keepdims=True) for x in (q, k))
    v, state = rng.normal(size=(1, T, Hv, Dv)), rng.normal(size=(1, Hv, Dv, Dk))
    g, beta = -g_scale * rng.exponential(size=(1, T, Hv)), rng.uniform(size=(1, T, Hv))
    return [x.astype(np.float32) for x in (q, k, v, g, beta, state)]


def definition(q, k, v, g, beta, state):
    """float64, one head and one token at a time."""
    q, k, v, g, beta, state = (x.astype(np.float64) for x in (q, k, v, g, beta, state))
    group, out = v.shape[2] // k.shape[2], np.zeros(v.shape)
    state = state.copy()
    for h in range(v.shape[2]):
        S = state[0, h]
        for t in range(v.shape[1]):
            S = np.exp(g[0, t, h]) * S
            S = S + beta[0, t, h] * np.outer(v[0, t, h] - S @ k[0, t, h // group], k[0, t, h // group])
            out[0, t, h] = S @ q[0, t, h // group]
        state[0, h] = S
    return out, state


@pytest.mark.parametrize("form", [recurrent, chunked, gated_delta])
@pytest.mark.parametrize("T", [1, 2, 7, 31, 32, 33, 64, 65, 130])
def test_forms_follow_the_definition(form, T):
    x = inputs(T)
    o, state = form(*map(mx.array, x))
    expected_o, expected_state = definition(*x)
    assert np.abs(np.array(o) - expected_o).max() <= 1e-5 * expected_o.std()
    assert np.abs(np.array(state) - expected_state).max() <= 1e-5 * expected_state.std()
    assert state.dtype == mx.float32


@pytest.mark.parametrize(("Hk", "Hv"), [(1, 1), (1, 4), (4, 4)])
def test_head_groups(Hk, Hv):
    x = inputs(40, Hk, Hv)
    for form in (recurrent, chunked):
        o, _ = form(*map(mx.array, x))
        assert np.abs(np.array(o) - definition(*x)[0]).max() <= 1e-5


def test_any_split_gives_the_same_state():
    x = list(map(mx.array, inputs(100)))
    whole, state = gated_delta(*x)
    pieces, carried = [], x[5]
    for start, end in ((0, 37), (37, 38), (38, 100)):
        q, k, v, g, beta = (a[:, start:end] for a in x[:5])
        o, carried = gated_delta(q, k, v, g, beta, carried)
        pieces.append(o)
    assert float(mx.abs(mx.concatenate(pieces, axis=1) - whole).max()) <= 1e-5
    assert float(mx.abs(carried - state).max()) <= 1e-5


def test_strong_decay_and_alike_keys_stay_finite():
    q, k, v, g, beta, state = inputs(96, g_scale=30.0)
    k[:] = k[:, :1]  # every key the same: the powers of A grow fastest
    beta[:] = 1.0
    o, final = chunked(*map(mx.array, (q, k, v, g, beta, state)))
    expected_o, expected_state = definition(q, k, v, g, beta, state)
    np.testing.assert_allclose(np.array(o), expected_o, atol=2e-5)
    np.testing.assert_allclose(np.array(final), expected_state, atol=2e-5)


def test_drift_over_512_steps():
    x = inputs(512, 1, 2, g_scale=0.01)
    _, state = recurrent(*map(mx.array, x))
    _, expected = definition(*x)
    assert np.abs(np.array(state) - expected).max() <= 1e-5 * np.abs(expected).max()


@pytest.mark.parametrize("dtype", [mx.bfloat16, mx.float16])
def test_16_bit_activations_are_computed_in_float32(dtype):
    x = [mx.array(a) for a in inputs(70)]
    rounded = [a.astype(dtype) for a in x[:3]] + x[3:]
    o, state = gated_delta(*rounded)
    expected, expected_state = definition(*(np.array(a.astype(mx.float32)) for a in rounded))
    assert o.dtype == dtype
    np.testing.assert_allclose(np.array(o.astype(mx.float32)), expected, rtol=1e-2, atol=1e-2)
    assert np.abs(np.array(state) - expected_state).max() <= 1e-5 * expected_state.std()


def test_unit_lower_inverse():
    rng = np.random.default_rng(0)
    A = np.tril(rng.normal(size=(3, 32, 32)), -1).astype(np.float32) * 0.3
    inverse = np.array(unit_lower_inverse(mx.array(A)))
    np.testing.assert_allclose(inverse @ (np.eye(32) + A), np.broadcast_to(np.eye(32), A.shape), atol=1e-4)
