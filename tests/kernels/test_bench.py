"""The counted promises: decode kernels move at most 1.05 of the least, a layer's experts take three dispatches."""

import mlx.core as mx
import pytest
from kernel_bench import counts as bench
from kernel_bench import errors, times
from kernel_cases.oracles import experts_case
from metal_cpu import metal_on_cpu

from metal_kernels import dispatch
from metal_kernels.dispatch import Trial, Verdict
from metal_kernels.router_topk import ROUTER

pytestmark = pytest.mark.usefixtures("compiler")


def by_who(rows: list[bench.Row]) -> dict[str, bench.Row]:
    return {row.who: row for row in rows}


@pytest.mark.parametrize("M", [1, 2, 8])
def test_a_layer_of_experts(M):
    router, mlp = by_who(bench.routing(M, 512, 10)), by_who(bench.experts("mxfp4", M, 10, 24, 512, 256))
    assert router["ours"].dispatches + mlp["ours"].dispatches == 3
    assert router["mlx"].dispatches + mlp["mlx"].dispatches > 9
    for ours, mlx in ((router["ours"], router["mlx"]), (mlp["ours"], mlp["mlx"])):
        assert ours.ratio <= 1.05
        assert ours.device_bytes <= mlx.device_bytes


@pytest.mark.parametrize("T", [1, 8, 64])
def test_the_delta_rule(T):
    inputs = by_who(bench.gates(T, 2, 8, 128))
    assert inputs["ours"].dispatches == 1 < inputs["mlx"].dispatches
    rows = bench.recurrence(T, 2, 8, 128) + ([] if T > 8 else bench.rollback(T, 2, 8, 128))
    for row in [*rows, inputs["ours"]]:
        if row.who.startswith("ours"):
            assert row.dispatches == 1
            assert row.ratio <= 1.05


def test_the_table():
    text = bench.table(bench.routing(1, 512, 10))
    assert [line.split()[:3] for line in text.splitlines()[1:]] == [
        ["router_topk", "T=1", who] for who in ("ours", "mlx")
    ]


def test_the_table_of_errors():
    found = {
        "float32": [{"kernel": "a", "output": 1e-6, "state": None}, {"kernel": "b", "output": 2e-3, "state": 3e-7}]
    }
    lines = errors.table(found | {"bfloat16": found["float32"]}).splitlines()
    assert [line.split() for line in lines[1:]] == [["a", "1.0e-06", "1.0e-06"], ["b", *["2.0e-03", "(3.0e-07)"] * 2]]


def test_least_bytes():
    assert times.least_bytes((mx.zeros(8), 3), [mx.zeros(2)]) == 40
    x, _, weights, bank = experts_case("affine", 2, 2, 5, 128, 64)
    slots = mx.array([[4, 0], [0, 4]], mx.uint32)
    expert = 3 * 128 * 64 // 2 + 3 * 128 * 64 // 64 * 2 * 2  # 4-bit codes; two bfloat16 for each group of 64
    assert times.least_bytes((x, slots, weights, bank), [x]) == 2 * x.nbytes + 16 + 16 + 2 * expert


def test_times_become_bandwidths(monkeypatch):
    trials = (Trial("ours", "verified", "", 1e-6, 50.0), Trial("mlx", "mismatch", "it differs", 1.0))
    ours, mlx = times.rows(Verdict("op", "ours", trials), 10**6, 4e10)
    assert (ours.gigabytes_per_second, ours.share) == (pytest.approx(20), pytest.approx(0.5))
    assert (mlx.outcome, mlx.microseconds) == ("mismatch: it differs", None)
    monkeypatch.setattr(dispatch, "RUNS", 1)
    with metal_on_cpu():  # as on a Mac
        found = times.timed([ROUTER], bandwidth=1e9)
    assert [(row.operation, row.candidate) for row in found] == [
        ("copy", "mlx"), ("router_topk", "ours"), ("router_topk", "reference"),
    ]  # fmt: skip
    assert all(row.outcome == "verified" and row.share for row in found)
    assert [line.split()[:2] for line in times.table(found).splitlines()[1:]] == [
        [row.operation, row.candidate] for row in found
    ]
