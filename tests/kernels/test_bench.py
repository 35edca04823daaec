"""The counted promises: decode kernels move at most 1.05 of the least, a layer's experts take three dispatches."""

import bench_kernels as bench
import pytest

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
