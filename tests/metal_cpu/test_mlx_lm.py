"""mlx-lm's own gated delta kernels on the machine, against mlx-lm's operations and float64. Needs the oracle extra."""

import importlib
import sys
from collections.abc import Iterator
from typing import Any

import mlx.core as mx
import pytest

from .oracle import delta_case, delta_float64, spread_error
from .recorded import metal_on_cpu

pytestmark = [pytest.mark.oracle, pytest.mark.usefixtures("compiler")]
KERNELS = ["gated_delta_kernel_unpacked", "gated_delta_kernel_xtree", "gated_delta_kernel"]


@pytest.fixture
def gated_delta(monkeypatch) -> Iterator[Any]:
    """mlx_lm.models.gated_delta, imported where Metal seems to be there: it makes its kernels at import."""
    pytest.importorskip("mlx_lm")
    monkeypatch.setattr(mx.metal, "is_available", lambda: True)
    monkeypatch.delitem(sys.modules, "mlx_lm.models.gated_delta", raising=False)
    with metal_on_cpu():
        yield importlib.import_module("mlx_lm.models.gated_delta")
    sys.modules.pop("mlx_lm.models.gated_delta", None)


def linear(case: list[mx.array]) -> list[mx.array]:
    """mlx-lm takes the decay itself, not its logarithm."""
    return [*case[:3], mx.exp(case[3]), *case[4:]]


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize(("B", "T", "Hk", "Hv", "dtype"), [(1, 9, 2, 4, mx.float32), (2, 5, 1, 2, mx.bfloat16)])
def test_kernels(gated_delta, kernel, B, T, Hk, Hv, dtype):
    case = delta_case(B, T, Hk, Hv, 128, dtype)
    expected, expected_state = delta_float64(*case)
    y, state = getattr(gated_delta, kernel)(*linear(case))
    assert spread_error(y, expected) < (1e-5 if dtype == mx.float32 else 3e-2)
    assert spread_error(state, expected_state) < 1e-5


def test_they_agree_bit_for_bit_as_mlx_lm_says(gated_delta):
    """A statement about real GPUs that the machine reproduces: its reductions run in the hardware's order."""
    case = linear(delta_case(1, 9, 2, 4, 128, mx.float32))
    results = [getattr(gated_delta, kernel)(*case) for kernel in KERNELS]
    for y, state in results[1:]:
        assert mx.array_equal(y, results[0][0])
        assert mx.array_equal(state, results[0][1])


def test_a_mask(gated_delta):
    case = linear(delta_case(1, 9, 2, 4, 128, mx.float32))
    mask = mx.array([[True] * 6 + [False] * 3])
    y, state = gated_delta.gated_delta_kernel(*case, mask)
    ops_y, ops_state = gated_delta.gated_delta_ops(*case, mask)
    assert spread_error(y[:, :6], ops_y[:, :6]) < 1e-5
    assert spread_error(state, ops_state) < 1e-5
