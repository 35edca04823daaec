"""The fused inputs of the delta rule against float64 numpy."""

import mlx.core as mx
import numpy as np
import pytest
from kernel_cases.oracles import inputs_oracle
from metal_cpu import metal_on_cpu
from metal_cpu.testing import ORDERS, SANITIZERS

from metal_kernels.delta_inputs import DeltaInputs, delta_inputs_metal, delta_inputs_reference, random_inputs

pytestmark = pytest.mark.usefixtures("compiler")


def on_cpu(*arguments, **options) -> DeltaInputs:
    with metal_on_cpu(**options):
        return delta_inputs_metal(*arguments)


FORMS = [on_cpu, delta_inputs_reference]


def check(form, arguments: tuple) -> None:
    result = form(*arguments)
    for name, got, want in zip(DeltaInputs._fields, result, inputs_oracle(*arguments), strict=True):
        error = np.abs(np.array(got.astype(mx.float32)) - want).max()
        assert error <= 1e-5 * max(want.std(), np.abs(want).max()), (name, error)
    assert result.past.dtype == arguments[1].dtype
    assert {a.dtype for a in result[:5]} == {mx.float32}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("dtype", [mx.float32, mx.bfloat16, mx.float16])
@pytest.mark.parametrize("T", [1, 2, 7, 16, 17, 63, 64, 65, 130])
def test_lengths(form, T, dtype):
    check(form, random_inputs(1, T, 2, 4, 64, dtype))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    ("B", "T", "Hk", "Hv", "D", "dtype"),
    [
        (1, 1, 16, 64, 128, mx.bfloat16),
        (2, 1, 1, 1, 32, mx.float32),
        (3, 19, 1, 3, 32, mx.bfloat16),
        (2, 5, 3, 3, 128, mx.float16),
    ],
)
def test_heads_batches_and_types(form, B, T, Hk, Hv, D, dtype):
    check(form, random_inputs(B, T, Hk, Hv, D, dtype))


@pytest.mark.parametrize("form", FORMS)
def test_extremes(form):
    qkv, past, taps, a, b, A_log, dt_bias, Hk = random_inputs(1, 3, 1, 2, 32, mx.float32)
    check(form, (qkv * 100, past * 0, taps, a * 60, b * 60, A_log, dt_bias, Hk))
    check(form, (qkv * 0, past * 0, taps, a, b, A_log, dt_bias, Hk))  # zero heads: no division by zero


@pytest.mark.parametrize("form", FORMS)
def test_slow_decays_keep_their_digits(form):
    """A head that forgets one part in a million a token: its log decay is far below the rounding of 1."""
    qkv, past, taps, a, b, A_log, dt_bias, Hk = random_inputs(1, 8, 1, 2, 32, mx.float32)
    arguments = (qkv, past, taps, a - 12, b, A_log, dt_bias * 0, Hk)
    assert np.allclose(np.array(form(*arguments).g), inputs_oracle(*arguments)[3], rtol=1e-5, atol=0)


def test_a_split_gives_the_same_bits():
    qkv, past, *rest, a, b, A_log, dt_bias, Hk = random_inputs(1, 9, 1, 2, 32, mx.bfloat16)
    whole = on_cpu(qkv, past, *rest, a, b, A_log, dt_bias, Hk)
    parts = []
    for now in (slice(0, 1), slice(1, 3), slice(3, 9)):
        parts.append(on_cpu(qkv[:, now], past, *rest, a[:, now], b[:, now], A_log, dt_bias, Hk))
        past = parts[-1].past
    for i in range(5):
        assert mx.array_equal(mx.concatenate([part[i] for part in parts], axis=1), whole[i])
    assert mx.array_equal(past, whole.past)


@pytest.mark.parametrize("options", ORDERS)
def test_schedules_agree(options):
    arguments = random_inputs(1, 19, 1, 2, 32, mx.float32)
    for a, b in zip(on_cpu(*arguments), on_cpu(*arguments, **options), strict=True):
        assert mx.array_equal(a, b)


@pytest.mark.parametrize("T", [1, 64])
def test_counted(T):
    arguments = random_inputs(1, T, 2, 4, 64, mx.bfloat16)
    with metal_on_cpu("count") as launches:
        result = delta_inputs_metal(*arguments)
    (launch,) = launches
    traffic = launch.counters.traffic
    assert traffic["qkv"].read <= arguments[0].nbytes * (1 if T == 1 else 19 / 16)
    least = sum(a.nbytes for a in arguments[:7]) + sum(a.nbytes for a in result)
    assert launch.counters.device_bytes() <= 1.05 * least


@pytest.mark.sanitizer
@pytest.mark.parametrize("variant", SANITIZERS)
@pytest.mark.parametrize("T", [1, 19])
def test_clean_under_sanitizers(variant, T):
    arguments = random_inputs(2, T, 1, 2, 64, mx.float32)
    for a, b in zip(on_cpu(*arguments, variant=variant), on_cpu(*arguments), strict=True):
        assert mx.array_equal(a, b)
