"""The router kernel and its reference against sorting in numpy."""

import mlx.core as mx
import numpy as np
import pytest
from kernel_cases.oracles import router_oracle
from metal_cpu import metal_on_cpu
from metal_cpu.testing import ORDERS, SANITIZERS

from metal_kernels.router_topk import router_topk, router_topk_metal, router_topk_reference

pytestmark = pytest.mark.usefixtures("compiler")


def on_cpu(logits: mx.array, k: int, **options) -> tuple[mx.array, mx.array]:
    with metal_on_cpu(**options):
        return router_topk_metal(logits, k)


FORMS = [on_cpu, router_topk_reference]


def check(form, logits: mx.array, k: int) -> None:
    ids, weights = form(logits, k)
    expected_ids, expected_weights = router_oracle(logits, k)
    assert ids.dtype == mx.uint32
    assert weights.dtype == mx.float32
    assert np.array_equal(np.array(ids), expected_ids)
    assert np.abs(np.array(weights) - expected_weights).max() <= 2e-7


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    ("T", "E", "k"), [(1, 512, 10), (2, 512, 10), (65, 512, 10), (7, 8, 2), (3, 1000, 32), (2, 5, 5)]
)
def test_choice_and_weights(form, T, E, k):
    check(form, mx.random.normal((T, E), key=mx.random.key(T)) * 3, k)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("step", [0.5, 2.0, 100.0])
def test_ties_go_to_the_lower_expert(form, step):
    logits = mx.random.normal((9, 512), key=mx.random.key(1)) * 3
    check(form, mx.round(logits / step) * step, 10)  # with step 100 every logit is the same, zeros of both signs


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("dtype", [mx.float32, mx.bfloat16, mx.float16])
@pytest.mark.parametrize("T", [1, 2, 7, 63, 64, 65, 130])
def test_lengths(form, T, dtype):
    """Rounded to 16 bits the logits have ties."""
    check(form, (mx.random.normal((T, 512), key=mx.random.key(2)) * 3).astype(dtype), 10)


@pytest.mark.parametrize("form", FORMS)
def test_large_and_infinite_logits(form):
    logits = mx.random.normal((3, 512), key=mx.random.key(3)) * 1e4
    logits[1, 5:] = -mx.inf  # fewer finite logits than experts to choose: their weight is 0
    check(form, logits, 10)


@pytest.mark.parametrize("form", FORMS)
def test_nan_is_seen_and_ids_stay_valid(form):
    logits = mx.random.normal((3, 512), key=mx.random.key(4))
    logits[1, 77] = mx.nan
    ids, weights = (np.array(a) for a in form(logits, 10))
    assert np.isnan(weights[1]).all()
    assert np.isfinite(weights[[0, 2]]).all()
    assert all(len(set(row)) == 10 and row.max() < 512 for row in ids)


@pytest.mark.parametrize("options", ORDERS)
def test_schedules_agree(options):
    logits = mx.random.normal((4, 512), key=mx.random.key(5))
    for a, b in zip(on_cpu(logits, 10), on_cpu(logits, 10, **options), strict=True):
        assert mx.array_equal(a, b)


def test_counted():
    logits = mx.random.normal((3, 512), key=mx.random.key(6))
    with metal_on_cpu("count") as launches:
        router_topk_metal(logits, 10)
    (launch,) = launches
    traffic = launch.counters.traffic
    assert traffic["logits"].read == 3 * 512 * 4  # each logit once
    assert traffic["ids"].written + traffic["weights"].written == 3 * 10 * 8
    assert launch.counters.threadgroup_barriers == 0


def test_off_metal_the_reference_is_used():
    logits = mx.random.normal((3, 64), key=mx.random.key(7))
    for a, b in zip(router_topk(logits, 4), router_topk_reference(logits, 4), strict=True):
        assert mx.array_equal(a, b)


@pytest.mark.sanitizer
@pytest.mark.parametrize("variant", SANITIZERS)
@pytest.mark.parametrize(("T", "E", "k"), [(2, 512, 10), (3, 33, 5)])
def test_clean_under_sanitizers(variant, T, E, k):
    logits = mx.random.normal((T, E), key=mx.random.key(8))
    for a, b in zip(on_cpu(logits, k, variant=variant), on_cpu(logits, k), strict=True):
        assert mx.array_equal(a, b)
