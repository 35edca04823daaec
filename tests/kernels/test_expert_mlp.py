"""The expert kernels and their reference against float64, with a decoder of the packed formats that is numpy's only."""

import mlx.core as mx
import numpy as np
import pytest
from kernel_cases.oracles import experts_case, experts_oracle
from metal_cpu import metal_on_cpu
from metal_cpu.oracle import spread_error
from metal_cpu.testing import ORDERS, SANITIZERS

from metal_kernels.expert_bank import GROUPS, ExpertBank, Stack
from metal_kernels.expert_mlp import (
    PAIRS_MAX,
    expert_mlp,
    expert_mlp_metal,
    expert_mlp_reference,
    expert_mlp_stock,
    expert_rows,
    expert_rows_metal,
    expert_rows_reference,
    weighted_sum,
)

pytestmark = pytest.mark.usefixtures("compiler")
TOLERANCE = {mx.float32: 1e-5, mx.float16: 3e-3, mx.bfloat16: 2e-2}  # sums; one rounding of the output


def on_cpu(*arguments, **options) -> mx.array:
    with metal_on_cpu(**options):
        return expert_mlp_metal(*arguments)


def packed(weights: mx.array, mode: str) -> Stack:
    codes, scales, *biases = mx.quantize(weights, group_size=GROUPS[mode], bits=4, mode=mode)
    return Stack(codes, scales, biases[0] if biases else None, mode, GROUPS[mode], 4)


SHAPES = [(1, 10, 16, 4096, 1024), (1, 2, 8, 192, 64), (2, 3, 4, 320, 128), (5, 2, 3, 192, 64), (8, 4, 6, 192, 64)]


@pytest.mark.parametrize("mode", GROUPS)
@pytest.mark.parametrize(("M", "K", "S", "H", "I"), SHAPES)
def test_float32(mode, M, K, S, H, I):  # noqa: E741
    arguments = experts_case(mode, M, K, S, H, I)
    expected = experts_oracle(*arguments)
    assert spread_error(on_cpu(*arguments), expected) <= 1e-5
    assert spread_error(expert_mlp_reference(*arguments), expected) <= 1e-5


@pytest.mark.parametrize("M", range(1, 9))
def test_every_number_of_rows(M):
    arguments = experts_case("mxfp4", M, 3, 4, 192, 64)
    y, expected = on_cpu(*arguments), experts_oracle(*arguments)
    assert spread_error(y, expected) <= 1e-5
    assert spread_error(y, np.array(expert_mlp_reference(*arguments))) <= 1e-5


@pytest.mark.parametrize("dtype", [mx.bfloat16, mx.float16])
@pytest.mark.parametrize("mode", GROUPS)
@pytest.mark.parametrize("M", [1, 3, 7])
def test_16_bit_activations(mode, dtype, M):
    arguments = experts_case(mode, M, 4, 5, 192, 64, dtype)
    y, expected = on_cpu(*arguments), experts_oracle(*arguments)
    assert y.dtype == dtype
    assert spread_error(y, expected) <= TOLERANCE[dtype]
    assert spread_error(expert_mlp_reference(*arguments), expected) <= TOLERANCE[dtype]


@pytest.mark.parametrize("dtype", [mx.bfloat16, mx.float16])
def test_16_bit_activations_at_the_real_size(dtype):
    arguments = experts_case("mxfp4", 1, 10, 12, 4096, 1024, dtype)
    assert spread_error(on_cpu(*arguments), experts_oracle(*arguments)) <= TOLERANCE[dtype]


@pytest.mark.parametrize("mode", GROUPS)
def test_weights_that_mlx_packed(mode):
    """Real scales, an expert of zeros among them, and sizes that are no multiple of a load by all lanes."""
    S, H, I = 3, 64 * 3, 64  # noqa: E741
    gate_up, down = mx.random.normal((S, 2 * I, H)) / 16, mx.random.normal((S, H, I)) / 16
    gate_up[1], down[1] = 0, 0
    bank = ExpertBank(*(packed(w, mode) for w in (gate_up, down)))
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


def rows_of(arguments: tuple) -> tuple:
    """The pairs of a case, each a row of its own."""
    x, slots, _, bank = arguments
    return mx.repeat(x, slots.shape[1], axis=0), slots.flatten(), bank


def rows_on_cpu(*arguments) -> mx.array:
    with metal_on_cpu():
        return expert_rows_metal(*arguments)


@pytest.mark.parametrize("sharing", [1, 2, 8])
@pytest.mark.parametrize("mode", GROUPS)
def test_rows_without_the_sum(mode, sharing):
    """Added up they are what the fused sum is before its rounding, whatever they share."""
    arguments = experts_case(mode, 8, 4, 6, 192, 64)
    y = rows_on_cpu(*rows_of(arguments), sharing)
    assert mx.array_equal(weighted_sum(y.reshape(8, 4, -1), arguments[2]), on_cpu(*arguments))
    x, slots, bank = rows_of(arguments)
    expected = experts_oracle(x, slots[:, None], mx.ones((32, 1)), bank)
    for form in (rows_on_cpu, expert_rows_reference, expert_rows):
        assert spread_error(form(x, slots, bank), expected) <= 1e-5


def test_as_many_rows_as_a_call_takes():
    x, slots, _, bank = experts_case("mxfp4", PAIRS_MAX, 1, 6, 192, 64, mx.bfloat16)
    expected = experts_oracle(x, slots, mx.ones(slots.shape), bank)
    y = rows_on_cpu(x, slots.flatten(), bank, 3)
    assert y.dtype == mx.float32
    assert spread_error(y, expected) <= 1e-5
    with pytest.raises(ValueError, match="97 pairs of a row and an expert: the decode kernels take 96"):
        expert_rows_metal(mx.zeros((97, 192)), mx.zeros(97, mx.uint32), bank)


@pytest.mark.parametrize("ascending", [False, True])
def test_experts_that_are_not_packed(ascending):
    """Plain floats, and two matrices packed differently: no kernel of ours, the same answers."""
    gate_up, down = mx.random.normal((5, 128, 192)) / 16, mx.random.normal((5, 192, 64)) / 16
    x, slots, weights, _ = experts_case("mxfp4", 30, 3, 5, 192, 64)
    mixed = ExpertBank(packed(gate_up, "mxfp4"), packed(down, "affine"))
    assert mixed.packing is None
    assert spread_error(expert_mlp(x, slots, weights, mixed), experts_oracle(x, slots, weights, mixed)) <= 1e-5
    plain = ExpertBank(Stack(gate_up), Stack(down))
    assert plain.packing is None
    h = mx.einsum("mh,mkrh->mkr", x, gate_up[slots])
    h = h[..., :64] * mx.sigmoid(h[..., :64]) * h[..., 64:]
    expected = mx.einsum("mkr,mkhr->mkh", h, down[slots])
    assert spread_error(expert_mlp(x, slots, weights, plain), weighted_sum(expected, weights)) <= 1e-5
    order = mx.argsort(slots.flatten()) if ascending else mx.arange(slots.size)
    rows, _, _ = rows_of((x, slots, weights, plain))
    y = expert_rows(rows[order], slots.flatten()[order], plain, ascending=ascending)
    assert spread_error(y, expected.reshape(slots.size, -1)[order]) <= 1e-5


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
    for launch, codes in zip(launches, (bank.gate_up.weight, bank.down.weight), strict=True):
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
