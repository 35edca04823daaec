"""Counting MLX's own operations."""

import mlx.core as mx

from .graph import dispatches

KIB = mx.zeros((16, 16))  # 1,024 bytes


def test_neighbouring_elementwise_operations_are_one_kernel():
    (kernel,) = dispatches(lambda x: mx.exp(x * 2 + 1), KIB)
    assert kernel.operations == ["Multiply", "Add", "Exp"]
    assert 2048 <= kernel.device_bytes <= 2048 + 8  # and two constants


def test_views_are_free_and_broadcasts_are_read_once():
    assert dispatches(lambda x: x.reshape(4, 64)[:2].T, KIB) == []
    (kernel,) = dispatches(lambda x, y: x + y[None], KIB, mx.zeros((16,)))
    assert kernel.device_bytes == 2 * 1024 + 64


def test_a_reduction_is_a_kernel_and_ends_a_chain():
    kernels = dispatches(lambda x: mx.exp(x * x).sum(axis=-1) * 2, KIB)
    assert [k.operations for k in kernels] == [["Multiply", "Exp"], ["Reduce"], ["Multiply"]]
    assert [k.device_bytes for k in kernels][:2] == [2048, 1024 + 64]


def test_a_value_used_twice_is_written():
    kernels = dispatches(lambda x: (lambda y: y.sum() + y[0, 0])(x * 2), KIB)
    assert sum(k.device_bytes for k in kernels if "Multiply" in k.operations) >= 2048


def test_an_operation_waits_for_all_it_needs():
    kernels = dispatches(lambda x: (lambda y: y / y.sum())(mx.exp(x)), KIB)
    assert [k.operations for k in kernels] == [["Exp"], ["Reduce"], ["Divide"]]
