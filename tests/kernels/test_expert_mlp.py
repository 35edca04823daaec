"""The expert kernels and their reference against float64, with a decoder of the packed formats that is numpy's only."""

import mlx.core as mx
import numpy as np
import pytest
from kernel_cases.oracles import experts_case, experts_oracle
from metal_cpu import metal_on_cpu
from metal_cpu.oracle import spread_error
from metal_cpu.testing import ORDERS, SANITIZERS

from metal_kernels.expert_mlp import (
    GROUPS,
    ExpertBank,
    expert_mlp,
    expert_mlp_metal,
    expert_mlp_reference,
    expert_mlp_stock,
)

pytestmark = pytest.mark.usefixtures("compiler")
TOLERANCE = {mx.float32: 1e-5, mx.float16: 3e-3, mx.bfloat16: 2e-2}  # sums; one rounding of the output


def on_cpu(*arguments, **options) -> mx.array:
    with metal_on_cpu(**options):
        return expert_mlp_metal(*arguments)


SHAPES = [(1, 10, 16, 4096, 1024), (1, 2, 8, 192, 64), (2, 3, 4, 320, 128), (5, 2, 3, 192, 64), (8, 4, 6, 192, 64)]


@pytest.mark.parametrize(("mode", "dtype"), [("mxfp4", mx.float32), ("nvfp4", mx.float32), ("affine", mx.float32)])
@pytest.mark.parametrize(("M", "K", "S", "H", "I"), SHAPES)
def test_float32(mode, dtype, M, K, S, H, I):  # noqa: E741
    arguments = experts_case(mode, M, K, S, H, I, dtype)
    expected = experts_oracle(*arguments)
    assert spread_error(on_cpu(*arguments), expected) <= 1e-5
    assert spread_error(expert_mlp_reference(*arguments), expected) <= 1e-5


@pytest.mark.parametrize("dtype", [mx.bfloat16, mx.float16])
@pytest.mark.parametrize("mode", GROUPS)
def test_16_bit_activations(mode, dtype):
    arguments = experts_case(mode, 3, 4, 5, 192, 64, dtype)
    y, expected = on_cpu(*arguments), experts_oracle(*arguments)
    assert y.dtype == dtype
    assert spread_error(y, expected) <= TOLERANCE[dtype]


@pytest.mark.parametrize("mode", GROUPS)
def test_weights_that_mlx_packed(mode):
    """Real scales, an expert of zeros among them, and sizes that are no multiple of a load by all lanes."""
    S, H, I = 3, 64 * 3, 64  # noqa: E741
    gate_up, down = mx.random.normal((S, 2 * I, H)) / 16, mx.random.normal((S, H, I)) / 16
    gate_up[1], down[1] = 0, 0
    packed = [list(mx.quantize(w, group_size=GROUPS[mode], bits=4, mode=mode)) for w in (gate_up, down)]
    (a, sa, *ba), (b, sb, *bb) = packed
    bank = ExpertBank(a, sa, b, sb, ba[0] if ba else None, bb[0] if bb else None, mode, GROUPS[mode])
    x, slots, weights, _ = experts_case(mode, 2, 3, S, H, I)
    expected = experts_oracle(x, slots, weights, bank)
    assert spread_error(on_cpu(x, slots, weights, bank), expected) <= 1e-5
    assert spread_error(expert_mlp_reference(x, slots, weights, bank), expected) <= 1e-5


@pytest.mark.parametrize("mode", GROUPS)
def test_a_row_does_not_depend_on_the_others(mode):
    """Bit for bit: a speculated token must get the logits it gets alone."""
    x, slots, weights, bank = experts_case(mode, 8, 4, 6, 192, 64)
    together = on_cpu(x, slots, weights, bank)
    for rows in (slice(0, 1), slice(3, 4), slice(2, 4), slice(4, 7)):
        assert mx.array_equal(on_cpu(x[rows], slots[rows], weights[rows], bank), together[rows])


@pytest.mark.parametrize("slots", [[[3, 3, 3, 3]], [[0, 1, 2, 3], [3, 2, 1, 0]], [[5, 5, 0, 5], [5, 0, 0, 5]]])
def test_repeated_slots(slots):
    x, _, weights, bank = experts_case("mxfp4", len(slots), 4, 6, 192, 64)
    arguments = (x, mx.array(slots, mx.uint32), weights, bank)
    assert spread_error(on_cpu(*arguments), experts_oracle(*arguments)) <= 1e-5


def test_many_rows_are_grouped_by_expert():
    arguments = experts_case("mxfp4", 40, 4, 6, 192, 64)
    assert spread_error(expert_mlp(*arguments), experts_oracle(*arguments)) <= 1e-5
    assert spread_error(expert_mlp_stock(*arguments), experts_oracle(*arguments)) <= 1e-5


@pytest.mark.parametrize("options", ORDERS)
def test_schedules_agree(options):
    arguments = experts_case("mxfp4", 3, 4, 5, 192, 64)
    assert mx.array_equal(on_cpu(*arguments), on_cpu(*arguments, **options))


@pytest.mark.parametrize(("M", "K", "S"), [(1, 10, 12), (4, 2, 3), (8, 10, 40)])
def test_each_weight_is_read_once(M, K, S):
    """By every thread together, not only after caches: the bytes asked for are the bytes of the slots in use."""
    x, _, weights, bank = experts_case("mxfp4", M, K, S, 1024, 512)
    slots = mx.argsort(mx.random.uniform(shape=(M, S), key=mx.random.key(1)), axis=-1)[:, :K].astype(mx.uint32)
    with metal_on_cpu("count") as launches:
        expert_mlp_metal(x, slots, weights, bank)
    assert [launch.name for launch in launches] == ["expert_gate_up", "expert_down"]
    used = len(set(np.array(slots).flatten().tolist()))
    for launch, codes in zip(launches, (bank.gate_up, bank.down), strict=True):
        traffic = launch.counters.traffic
        assert traffic["w"].read == used * codes[0].nbytes
        assert traffic["scales"].read_by_group == used * codes[0].nbytes // 16  # a byte for 32 codes
        least = used * codes[0].nbytes * 17 // 16
        assert launch.counters.device_bytes() <= 1.05 * least


@pytest.mark.sanitizer
@pytest.mark.parametrize("variant", SANITIZERS)
@pytest.mark.parametrize("mode", GROUPS)
@pytest.mark.parametrize("M", [1, 3])
def test_clean_under_sanitizers(variant, mode, M):
    arguments = experts_case(mode, M, 3, 4, 192, 64)
    assert mx.array_equal(on_cpu(*arguments, variant=variant), on_cpu(*arguments))
