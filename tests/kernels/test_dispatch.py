"""Choosing an implementation: by trial, in the open, remembered; never one that is wrong."""

import json
import warnings

import mlx.core as mx
import pytest
from metal_cpu import metal_on_cpu

from metal_kernels import dispatch
from metal_kernels.dispatch import Operation, configure, disagreement, judge, report
from metal_kernels.gated_delta import DECODE
from metal_kernels.operations import OPERATIONS
from metal_kernels.router_topk import ROUTER, router_topk_reference


def double(x: mx.array) -> mx.array:
    return x * 2


def wrong(x: mx.array) -> mx.array:
    return x * 2.001


def refused(x: mx.array) -> mx.array:
    raise RuntimeError("[metal::Device] Unable to build metal library from source\nerror: use of undeclared identifier")


def not_a_number(x: mx.array) -> mx.array:
    return x * mx.nan


def operation(ours=double, **stock) -> Operation:
    return Operation("double", double, ours, lambda: [(mx.arange(8.0),), (mx.arange(32.0),)], 1e-5, stock)


class Clock:
    """Gives every candidate in turn the time it is told, in seconds a run."""

    def __init__(self, *seconds: float):
        self.now, self.calls, self.seconds = 0.0, 0, seconds

    def __call__(self) -> float:
        self.calls += 1
        if self.calls % 2 == 0:
            self.now += self.seconds[(self.calls - 1) // (2 * dispatch.RUNS)]
        return self.now


@pytest.fixture
def on_metal(monkeypatch, tmp_path):
    """As on a Mac: the trials are held, and kept in a folder."""
    monkeypatch.setattr(dispatch._Settings, "on_metal", lambda self: True)
    configure("auto", tmp_path)
    yield tmp_path
    configure()


def new_process() -> None:
    dispatch._verdicts.clear()


def test_the_fastest_verified_candidate_wins():
    assert judge(operation(mlx=double), clock=Clock(3e-3, 1e-3, 2e-3)).used == "mlx"
    assert judge(operation(mlx=double), clock=Clock(1e-3, 3e-3, 2e-3)).used == "ours"
    assert judge(operation(mlx=wrong), clock=Clock(3e-3, 2e-3)).used == "reference"
    verdict = judge(operation(mlx=double), mode="metal", clock=Clock(3e-3, 1e-3, 2e-3))
    assert verdict.used == "ours"
    assert [round(t.microseconds or 0) for t in verdict.trials] == [3000, 1000, 2000]


@pytest.mark.parametrize(
    ("ours", "outcome", "reason"),
    [(wrong, "mismatch", "differs"), (not_a_number, "mismatch", "inf"), (refused, "failed", "Unable to build")],
)
@pytest.mark.parametrize("mode", ["auto", "metal"])
def test_a_bad_kernel_is_named_and_not_used(ours, outcome, reason, mode):
    with pytest.warns(RuntimeWarning, match="kernel for double is not used, reference is"):
        verdict = judge(operation(ours), mode)
    assert verdict.used == "reference"
    assert verdict.trials[0].outcome == outcome
    assert reason in verdict.trials[0].reason


def test_off_metal_nothing_is_tried():
    assert operation(refused).best() is double
    assert [(v.operation, v.used, v.trials) for v in report([operation(refused)])] == [("double", "reference", ())]


def test_reference_mode_tries_nothing(on_metal):
    configure("reference", on_metal)
    assert operation(refused).best() is double
    assert not list(on_metal.iterdir())


def test_verdicts_are_kept(on_metal):
    with pytest.warns(RuntimeWarning):
        assert operation(refused).best() is double
    configure("auto", on_metal)  # another engine of this process
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert operation(refused).best() is double
        new_process()
        assert operation(refused).best() is double
    (verdict,) = report([operation(refused)])
    assert verdict.trials[0].candidate == "ours"
    assert verdict.trials[0].outcome == "failed"


def test_another_machine_judges_anew(on_metal, monkeypatch):
    operation().best()
    monkeypatch.setattr(dispatch, "_machine", lambda: "another machine")
    new_process()
    with pytest.warns(RuntimeWarning):
        operation(wrong).best()
    assert list(json.loads((on_metal / "kernels.json").read_text())) == ["another machine"]


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"machine": 3}', "not json", "\x00"])
def test_a_damaged_file_is_judged_over(on_metal, monkeypatch, text):
    monkeypatch.setattr(dispatch, "_machine", lambda: "machine")
    (on_metal / "kernels.json").write_text(text)
    assert operation(double).best() is double
    assert json.loads((on_metal / "kernels.json").read_text())["machine"]["double"]["trials"]


def test_a_verdict_for_a_candidate_that_is_gone_is_judged_over(on_metal):
    operation(double, gone=double).best()
    stored = json.loads((on_metal / "kernels.json").read_text())
    for verdicts in stored.values():
        verdicts["double"]["used"] = "gone"
    (on_metal / "kernels.json").write_text(json.dumps(stored))
    new_process()
    assert operation(double).best() is double


def test_an_unknown_mode_is_refused():
    with pytest.raises(ValueError, match="fast is none of auto, metal, reference"):
        configure("fast")


def test_disagreement():
    x = mx.arange(4.0)
    assert disagreement([x], [x]) == 0
    assert disagreement([x + 1], [x]) == pytest.approx(1 / 1.118, rel=1e-3)
    assert disagreement([x * mx.nan], [x]) == float("inf")
    assert disagreement([x[:3]], [x]) == float("inf")
    assert disagreement([mx.array([1, 2])], [mx.array([1, 3])]) == float("inf")


@pytest.mark.parametrize("operation", [ROUTER, DECODE], ids=lambda o: o.name)
@pytest.mark.usefixtures("compiler")
def test_our_kernels_pass_their_own_trial(operation, monkeypatch):
    """The trial that a Mac holds, with the machine in place of the GPU."""
    monkeypatch.setattr(dispatch, "RUNS", 1)
    with metal_on_cpu():
        verdict = judge(operation, mode="metal")
    assert verdict.used == "ours", verdict.trials  # MLX's own may fail here: its 16-bit sums on a CPU are poor


@pytest.mark.slow
@pytest.mark.parametrize("operation", [o for o in OPERATIONS if o not in (ROUTER, DECODE)], ids=lambda o: o.name)
@pytest.mark.usefixtures("compiler")
def test_all_kernels_pass_their_own_trial(operation, monkeypatch):
    test_our_kernels_pass_their_own_trial(operation, monkeypatch)


def test_names_are_distinct():
    assert len({operation.name for operation in OPERATIONS}) == len(OPERATIONS)
    assert ROUTER.candidates()["reference"] is router_topk_reference
