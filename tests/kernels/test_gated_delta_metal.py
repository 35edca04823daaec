"""The delta rule kernels against the float64 recurrence."""

import mlx.core as mx
import numpy as np
import pytest
from metal_cpu import metal_on_cpu
from metal_cpu.oracle import delta_case, delta_float64, delta_states_float64, spread_error
from metal_cpu.testing import ORDERS, SANITIZERS

from metal_kernels.gated_delta import (
    gated_delta_chunked_metal,
    gated_delta_metal,
    gated_delta_mlx,
    gated_delta_reference,
    gated_delta_steps,
    gated_delta_steps_metal,
)

pytestmark = pytest.mark.usefixtures("compiler")
TOLERANCE = {mx.float32: 1e-5, mx.float16: 3e-3, mx.bfloat16: 2e-2}
FORMS = [gated_delta_metal, gated_delta_chunked_metal]


def on_cpu(form, case: list[mx.array], **options) -> tuple[mx.array, mx.array]:
    with metal_on_cpu(**options):
        return form(*case)


def check(form, case: list[mx.array]) -> None:
    o, state = on_cpu(form, case)
    expected, expected_state = delta_float64(*case)
    assert o.dtype == case[2].dtype
    assert state.dtype == mx.float32
    assert spread_error(o, expected) <= TOLERANCE[o.dtype]
    assert spread_error(state, expected_state) <= 1e-5


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("T", [1, 2, 7, 63, 64, 65, 130])
def test_lengths(form, T, dtype):
    check(form, delta_case(1, T, 2, 4, 128, dtype))


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("T", [1, 2, 7, 63, 64, 65, 130])
def test_the_reference_agrees(T, dtype):
    """What every form is held against on a Mac is held here against the same float64."""
    case = delta_case(1, T, 2, 4, 128, dtype)
    o, state = gated_delta_reference(*case)
    for form in FORMS:
        ours, ours_state = on_cpu(form, case)
        assert spread_error(ours, o) <= (1 if dtype == mx.float32 else 2) * TOLERANCE[dtype]  # both are rounded
        assert spread_error(ours_state, state) <= 1e-5


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("T", [1, 33])
def test_the_real_heads(form, T):
    check(form, delta_case(1, T, 16, 64, 128, mx.float32))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    ("B", "Hk", "Hv", "D", "dtype"),
    [
        (2, 1, 1, 64, mx.float32),
        (1, 1, 3, 32, mx.float32),
        (2, 2, 4, 64, mx.bfloat16),
        (2, 3, 3, 128, mx.float16),
        (1, 1, 2, 16, mx.bfloat16),
    ],
)
def test_heads_batches_and_types(form, B, Hk, Hv, D, dtype):
    check(form, delta_case(B, 13, Hk, Hv, D, dtype))


@pytest.mark.parametrize("form", FORMS)
def test_keys_and_values_of_different_size(form):
    q, k, v, g, beta, state = delta_case(1, 11, 1, 2, 64, mx.float32)
    check(form, [q[..., :32], k[..., :32], v[..., :24], g, beta, state[:, :, :24, :32]])


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("g", [0.0, -1e-4, -30.0, -1e4])
def test_extreme_decays(form, g):
    """Nothing overflows: with decays of e^-30 a token the inverse of the running product would."""
    case = delta_case(1, 20, 1, 2, 64, mx.float32)
    case[3] = mx.full(case[3].shape, g)
    check(form, case)


@pytest.mark.parametrize("form", FORMS)
def test_equal_keys(form):
    """The worst case for the chunk's inverse: every key alike and every beta one."""
    case = delta_case(1, 24, 1, 1, 64, mx.float32)
    case[1] = mx.broadcast_to(case[1][:, :1], case[1].shape)
    case[4] = mx.ones_like(case[4])
    check(form, case)


@pytest.mark.parametrize("form", FORMS)
def test_512_tokens_do_not_drift(form):
    case = delta_case(1, 512, 1, 2, 128, mx.float32)
    case[3] = case[3] / 16  # decays near 1, so that early errors would still be there
    _, state = on_cpu(form, case)
    assert spread_error(state, delta_float64(*case)[1]) <= 1e-5


def test_any_split_gives_the_same_bits():
    case = delta_case(1, 12, 1, 2, 64, mx.float32)
    whole, state = on_cpu(gated_delta_metal, case)
    pieces, carried = [], case[5]
    for start, end in ((0, 1), (1, 2), (2, 9), (9, 12)):
        o, carried = on_cpu(gated_delta_metal, [*(a[:, start:end] for a in case[:5]), carried])
        pieces.append(o)
    assert mx.array_equal(mx.concatenate(pieces, axis=1), whole)
    assert mx.array_equal(carried, state)


@pytest.mark.parametrize("T", range(1, 9))
def test_steps_keep_the_state_after_every_token(T):
    case = delta_case(2, T, 2, 4, 64, mx.float32)
    o, states = on_cpu(gated_delta_steps_metal, case)
    assert spread_error(states, delta_states_float64(*case)[1]) <= 1e-5
    for t in range(T):  # rolling back gives the bits of never having gone further
        expected = on_cpu(gated_delta_metal, [*(a[:, : t + 1] for a in case[:5]), case[5]])
        assert mx.array_equal(o[:, : t + 1], expected[0])
        assert mx.array_equal(states[:, t], expected[1])


def test_references_of_steps_and_mlx_own():
    case = delta_case(2, 5, 1, 2, 128, mx.float32)
    o, states = gated_delta_steps(*case)
    expected, expected_states = delta_states_float64(*case)
    assert spread_error(o, expected) <= 1e-5
    assert spread_error(states, expected_states) <= 1e-5
    o, state = gated_delta_mlx(*case)
    assert spread_error(o, expected) <= 1e-5
    assert spread_error(state, expected_states[:, -1]) <= 1e-5


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("options", ORDERS)
def test_schedules_agree(form, options):
    case = delta_case(1, 13, 1, 2, 128, mx.float32)
    for a, b in zip(on_cpu(form, case), on_cpu(form, case, **options), strict=True):
        assert mx.array_equal(a, b)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("T", [1, 64])
def test_the_state_moves_once(form, T):
    case = delta_case(1, T, 2, 4, 128, mx.float32)
    with metal_on_cpu("count") as launches:
        form(*case)
    (launch,) = launches
    traffic, state = launch.counters.traffic, case[5].nbytes
    assert traffic["state"].read == state
    assert traffic["new_state"].written == state
    least = 2 * state + sum(a.nbytes for a in case[:5]) + case[2].nbytes
    assert launch.counters.device_bytes() <= 1.05 * least


def test_steps_write_each_state_once():
    case = delta_case(1, 4, 2, 4, 128, mx.float32)
    with metal_on_cpu("count") as launches:
        gated_delta_steps_metal(*case)
    traffic = launches[0].counters.traffic
    assert traffic["state"].read == case[5].nbytes
    assert traffic["new_state"].written == 4 * case[5].nbytes


def test_nan_comes_through():
    case = delta_case(1, 9, 1, 2, 64, mx.float32)
    case[2][0, 3, 1, 5] = mx.nan
    for form in FORMS:
        o, _ = on_cpu(form, case)
        assert np.isnan(np.array(o)[0, 3:, 1, 5]).all()
        assert np.isfinite(np.array(o)[0, :, 0]).all()


@pytest.mark.sanitizer
@pytest.mark.parametrize("variant", SANITIZERS)
@pytest.mark.parametrize("form", [*FORMS, gated_delta_steps_metal])
@pytest.mark.parametrize(("B", "T", "D"), [(1, 13, 128), (2, 3, 32)])
def test_clean_under_sanitizers(variant, form, B, T, D):
    case = delta_case(B, T, 1, 2, D, mx.float32)
    for a, b in zip(on_cpu(form, case, variant=variant), on_cpu(form, case), strict=True):
        assert mx.array_equal(a, b)
