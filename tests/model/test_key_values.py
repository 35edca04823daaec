"""Keys and values in fewer bits: what they take, and how far attention is from the exact one, in numpy float64."""

import mlx.core as mx
import numpy as np
import pytest

from qwen35_local.errors import UsageError
from qwen35_local.model.key_values import KeyValues
from qwen35_local.model.kv_format import PLAIN, KvFormat

HEADS, HKV, D = 8, 2, 64


def attended(q: np.ndarray, k: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Causal attention in float64: q [heads, T, D] are the last T of S."""
    T, S = q.shape[1], k.shape[1]
    k, v = (np.repeat(x, q.shape[0] // x.shape[0], axis=0).astype(np.float64) for x in (k, v))
    scores = q.astype(np.float64) @ k.swapaxes(1, 2) / np.sqrt(q.shape[2])
    scores[:, np.arange(S)[None] > np.arange(S - T, S)[:, None]] = -np.inf
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    return weights @ v / weights.sum(-1, keepdims=True)


def some(S: int, seed: int = 0) -> tuple[np.ndarray, ...]:
    rng = np.random.default_rng(seed)
    return tuple(rng.standard_normal((heads, S, D)).astype(np.float32) for heads in (HEADS, HKV, HKV))


@pytest.mark.parametrize(("bits", "error"), [(None, 2e-6), (16, 5e-3), (8, 2e-2), (4, 0.3)])
@pytest.mark.parametrize("pieces", [[300], [290, 10], [299, 1], [100, 100, 100]])
def test_attention_is_that_of_float64(bits, error, pieces):
    q, k, v = some(300)
    exact, state, at, worst = attended(q, k, v), KeyValues(KvFormat(bits)), 0, 0.0
    for piece in pieces:
        new = slice(at, at + piece)
        state.append(mx.array(k[None, :, new]), mx.array(v[None, :, new]))
        at += piece
        found = np.array(state.attend(mx.array(q[None, :, new]), at))[0]
        worst = np.abs(found - exact[:, new]).max() / np.abs(exact).max()
        assert worst <= error
    assert bits in (None, 16) or worst > error / 100, "so few bits cannot be exact"


@pytest.mark.parametrize(("bits", "error"), [(None, 2e-6), (8, 2e-2)])
@pytest.mark.parametrize("T", [1, 3])
def test_few_queries_of_a_long_context(bits, error, T):
    q, k, v = some(4500)
    state = KeyValues(KvFormat(bits))
    state.append(mx.array(k[None]), mx.array(v[None]))
    exact = attended(q[:, -T:], k, v)
    found = np.array(state.attend(mx.array(q[None, :, -T:]), 4500))[0]
    assert np.abs(found - exact).max() <= error * np.abs(exact).max()


@pytest.mark.parametrize("bits", [None, 16, 8, 4])
def test_they_take_what_is_planned(bits):
    state, format = KeyValues(KvFormat(bits)), KvFormat(bits)
    _, k, v = some(256)
    state.append(mx.array(k[None]), mx.array(v[None]))
    assert sum(array.nbytes for array in state.arrays) == 256 * 2 * HKV * format.nbytes(D, 4)


def test_the_released_model_takes_30_kib_a_token_in_16_bits():
    assert 15 * 2 * 2 * PLAIN.nbytes(256, 2) == 30 << 10
    assert 15 * 2 * 2 * KvFormat(16).nbytes(256, 4) == 30 << 10
    assert 15 * 2 * 2 * KvFormat(8).nbytes(256, 2) == 60 * (256 + 16)
    assert 15 * 2 * 2 * KvFormat(4).nbytes(256, 2) == 60 * (128 + 16)


@pytest.mark.parametrize("bits", [16, 8, 4])
def test_a_branch_is_a_copy(bits):
    q, k, v = some(40)
    state = KeyValues(KvFormat(bits))
    state.append(mx.array(k[None]), mx.array(v[None]))
    other = state.branch(30)
    other.append(*(mx.zeros((1, HKV, 5, D)) for _ in range(2)))
    again = state.attend(mx.array(q[None, :, -1:]), 40)
    fresh = KeyValues(KvFormat(bits))
    fresh.append(mx.array(k[None]), mx.array(v[None]))
    assert mx.array_equal(again, fresh.attend(mx.array(q[None, :, -1:]), 40)).item()
    assert (other.length, state.length) == (35, 40)


def test_impossible_formats_are_refused():
    with pytest.raises(UsageError, match="kv_bits must be 16, 8, 4 or none, not 3"):
        KvFormat(3)
    with pytest.raises(UsageError, match="heads of a multiple of 64 channels, and these have 80"):
        KvFormat(8).check(80)
