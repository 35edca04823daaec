"""The machine runs kernels that nobody here wrote: MLX's own, unmodified, against MLX's CPU results or float64."""

import mlx.core as mx
import numpy as np
import pytest

from . import mlx_kernels as stock
from .oracle import delta_case, delta_float64, spread_error

# by output type: sums of a few thousand products in another order, or one rounding of the output
TOLERANCE = {mx.float32: 1e-5, mx.float16: 5e-3, mx.bfloat16: 3e-2}
pytestmark = pytest.mark.usefixtures("compiler")
ORDERS = ["forward", "reverse", "shuffled"]
FORMATS = [("mxfp4", mx.bfloat16), ("mxfp4", mx.float32), ("nvfp4", mx.float16), ("mxfp8", mx.bfloat16)]


def normal(*shape: int, dtype: mx.Dtype = mx.float32, seed: int = 0) -> mx.array:
    return mx.random.normal(shape, key=mx.random.key(seed)).astype(dtype)


def reference(x: mx.array, parts: list[mx.array], mode: str) -> mx.array:
    """In float32, where MLX's CPU back end is exact to rounding; its 16-bit sums are not."""
    group, bits = stock.MODES[mode]
    parts = [parts[0], *(p.astype(mx.float32) if mode == "affine" else p for p in parts[1:])]
    return mx.quantized_matmul(x.astype(mx.float32), *parts, transpose=True, group_size=group, bits=bits, mode=mode)


@pytest.mark.parametrize(("mode", "dtype"), [*FORMATS, ("affine", mx.float32), ("affine", mx.bfloat16)])
@pytest.mark.parametrize(("M", "N", "K", "kernel"), [(1, 64, 512, "qmv_fast"), (2, 72, 448, "qmv")])
def test_quantized_matrix_vector(M, N, K, kernel, mode, dtype):
    if mode == "affine" and dtype == mx.bfloat16 and kernel == "qmv":
        pytest.skip("one 16-bit affine case is enough")
    parts = stock.quantized(normal(N, K), mode)
    if mode == "affine":
        parts = [parts[0], *(p.astype(dtype).astype(mx.float32) for p in parts[1:])]
    x = normal(M, K, dtype=dtype, seed=1)
    name, y, _ = stock.qmv(x, parts, mode)
    assert name.endswith(kernel)
    assert spread_error(y, reference(x, parts, mode)) < TOLERANCE[dtype]


@pytest.mark.parametrize(("mode", "dtype"), FORMATS)
@pytest.mark.parametrize(("M", "N", "K"), [(33, 64, 128), (40, 70, 96)])
def test_quantized_matrix_matrix(M, N, K, mode, dtype):
    parts, x = stock.quantized(normal(N, K), mode), normal(M, K, dtype=dtype, seed=1)
    _, y, _ = stock.qmm(x, parts, mode)
    assert spread_error(y, reference(x, parts, mode)) < TOLERANCE[dtype]


@pytest.mark.parametrize(("mode", "dtype"), [*FORMATS, ("affine", mx.float32)])
@pytest.mark.parametrize(("T", "J", "E", "N", "K", "kernel"), [(3, 4, 8, 64, 512, "fast"), (2, 3, 4, 36, 192, "qmv")])
def test_gathered_matrix_vector(T, J, E, N, K, kernel, mode, dtype):
    parts, x = stock.quantized(normal(E, N, K), mode), normal(T, K, dtype=dtype, seed=1)
    ids = mx.random.randint(0, E, (T, J), key=mx.random.key(2)).astype(mx.uint32)
    rows = mx.repeat(mx.arange(T, dtype=mx.uint32)[:, None], J, axis=1)
    name, y, _ = stock.gather_qmv(x, rows, ids, parts, mode)
    assert name.endswith(kernel)
    packing = dict(zip(("group_size", "bits"), stock.MODES[mode], strict=True), mode=mode)
    expected = mx.gather_qmm(x.astype(mx.float32)[:, None, None], *parts, rhs_indices=ids, transpose=True, **packing)[
        :, :, 0
    ]
    assert spread_error(y, expected) < TOLERANCE[dtype]


@pytest.mark.parametrize(("mode", "dtype"), FORMATS[:2])
@pytest.mark.parametrize(("R", "E", "N", "K"), [(50, 6, 64, 128), (200, 16, 96, 256)])
def test_grouped_matrix_matrix(R, E, N, K, mode, dtype):
    parts, x = stock.quantized(normal(E, N, K), mode), normal(R, K, dtype=dtype, seed=1)
    ids = mx.sort(mx.random.randint(0, E, (R,), key=mx.random.key(2))).astype(mx.uint32)
    _, y, _ = stock.gather_qmm(x, ids, parts, mode)
    expected = mx.gather_qmm(
        x.astype(mx.float32)[:, None], *parts, rhs_indices=ids, transpose=True, mode=mode, sorted_indices=True
    )[:, 0]
    assert spread_error(y, expected) < TOLERANCE[dtype]


@pytest.mark.parametrize("kernel", ["gated_delta_seq", "gated_delta_fused_chunk"])
@pytest.mark.parametrize(("B", "T", "dtype"), [(1, 16, mx.float32), (1, 13, mx.float32), (2, 21, mx.bfloat16)])
def test_gated_delta_update(kernel, B, T, dtype):
    q, k, v, g, beta, state = delta_case(B, T, 2, 4, 128, dtype)
    decay = mx.exp(g).astype(dtype)
    beta = beta.astype(dtype)
    expected, expected_state = delta_float64(q, k, v, mx.log(decay.astype(mx.float32)), beta, state)
    y, new, _ = stock.gated_delta(kernel, q, k, v, decay, beta, state)
    assert spread_error(y, expected) < TOLERANCE[dtype]
    assert spread_error(new, expected_state) < 1e-5


@pytest.mark.parametrize(("kernel", "N"), [("softmax_single_row", 300), ("softmax_looped", 1000)])
@pytest.mark.parametrize("dtype", [mx.float32, mx.float16])
def test_softmax(kernel, N, dtype):
    x = normal(3, N, dtype=dtype) * 4
    y, _ = stock.softmax(kernel, x)
    expected = np.array(mx.softmax(x.astype(mx.float32), axis=-1))  # a few large values: their spread is no measure
    assert np.abs(np.array(y.astype(mx.float32)) - expected).max() < TOLERANCE[dtype] * expected.max()


def test_logsumexp():
    x = normal(3, 300) * 4
    y, _ = stock.logsumexp(x)
    assert spread_error(y, mx.logsumexp(x, axis=-1)) < 1e-5


@pytest.mark.parametrize("order", ORDERS)
def test_the_result_does_not_depend_on_the_schedule(order):
    parts, x = stock.quantized(normal(64, 128), "mxfp4"), normal(33, 128, seed=1)
    _, first, _ = stock.qmm(x, parts, "mxfp4")
    _, other, _ = stock.qmm(x, parts, "mxfp4", order=order, seed=3)
    assert mx.array_equal(first, other)


SANITIZED = {
    "qmv_fast": lambda **run: stock.qmv(normal(1, 512), stock.quantized(normal(64, 512), "mxfp4"), "mxfp4", **run),
    "affine_qmv": lambda **run: stock.qmv(normal(2, 448), stock.quantized(normal(72, 448), "affine"), "affine", **run),
    "qmm": lambda **run: stock.qmm(normal(33, 128), stock.quantized(normal(70, 128), "nvfp4"), "nvfp4", **run),
    "softmax": lambda **run: stock.softmax("softmax_looped", normal(2, 300), **run),
    "gated_delta_seq": lambda **run: stock.gated_delta(
        "gated_delta_seq", *_with_decay(delta_case(1, 9, 1, 2, 128, mx.float32)), **run
    ),
}


def _with_decay(case: list[mx.array]) -> list[mx.array]:
    return [*case[:3], mx.exp(case[3]), *case[4:]]


@pytest.mark.sanitizer
@pytest.mark.parametrize("variant", ["address", "thread"])
@pytest.mark.parametrize("name", SANITIZED)
def test_clean_under_sanitizers(name, variant):
    SANITIZED[name](variant=variant)


def test_the_oracle_of_the_recurrence_is_mlx_too():
    q, k, v, g, beta, state = delta_case(1, 12, 1, 2, 128, mx.float32)
    y, new = mx.fast.gated_delta_update(q, k, v, mx.exp(g), beta, state)
    expected, expected_state = delta_float64(q, k, v, g, beta, state)
    assert spread_error(y, expected) < 1e-5
    assert spread_error(new, expected_state) < 1e-5
    assert np.isfinite(expected).all()
