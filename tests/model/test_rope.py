import math

import mlx.core as mx
import numpy as np

from qwen35_local.model.config import RopeConfig
from qwen35_local.model.rope import Rope, inverse_frequencies, rotate

RELEASED = RopeConfig(theta=1e7, rotary_dim=64, section=(11, 11, 10))


def test_yarn_of_the_model_card():
    """Factor 4 of 262,144: frequencies 0..14 stay, 22..31 are divided by 4, cos and sin grow by 0.1 ln 4 + 1."""
    plain, one = inverse_frequencies(RELEASED)
    yarn = RopeConfig(1e7, 64, (11, 11, 10), factor=4.0, original_context=262144)
    scaled, attention = inverse_frequencies(yarn)
    ratio = plain / scaled
    np.testing.assert_allclose(ratio[:15], 1, rtol=1e-6)
    np.testing.assert_allclose(ratio[22:], 4, rtol=1e-6)
    assert np.all(np.diff(ratio[14:23]) > 0)
    assert one == 1
    assert math.isclose(attention, 1.138629, rel_tol=1e-6)


def test_axes_are_interleaved():
    """11 frequencies turn with t (0, 3, …, 30), 11 with h (1, 4, …, 31), 10 with w (2, 5, …, 29)."""
    axis = np.array(Rope(RELEASED).axis)
    assert np.flatnonzero(axis == 0).tolist() == list(range(0, 31, 3))
    assert np.flatnonzero(axis == 1).tolist() == list(range(1, 32, 3))
    assert np.flatnonzero(axis == 2).tolist() == list(range(2, 30, 3))


def test_text_positions_are_equal_axes():
    rope, positions = Rope(RELEASED), mx.arange(5)
    flat, three = rope(positions), rope(mx.broadcast_to(positions, (3, 5)))
    assert all(mx.allclose(a, b).item() for a, b in zip(flat, three, strict=True))


def test_rotation_is_partial_and_keeps_lengths():
    x = mx.random.normal((1, 2, 5, 256))
    y = rotate(x, *Rope(RELEASED)(mx.arange(5)))
    assert mx.array_equal(y[..., 64:], x[..., 64:])
    assert mx.allclose(mx.linalg.norm(y, axis=-1), mx.linalg.norm(x, axis=-1), rtol=1e-5).item()
    # Scores depend on the distance alone.
    q, k = mx.random.normal((2, 1, 1, 1, 256))
    rope = Rope(RELEASED)
    near, far = ((rotate(q, *rope(mx.array([a]))) * rotate(k, *rope(mx.array([b])))).sum() for a, b in ((3, 1), (9, 7)))
    assert mx.allclose(near, far, rtol=1e-4, atol=1e-4).item()
