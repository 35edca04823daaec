"""What `qwen35 doctor` says about the kernels: every trial, the choice, and why none was held."""

import json
import warnings

import mlx.core as mx
import pytest

from metal_kernels import dispatch, operations
from metal_kernels.dispatch import Operation, configure


@pytest.fixture
def on_metal(monkeypatch, tmp_path):
    """As on a Mac with one good kernel, one wrong and one that does not compile; the user's folder is `tmp_path`."""

    def refused(x: mx.array) -> mx.array:
        raise RuntimeError("Unable to build metal library")

    def operation(name: str, ours) -> Operation:
        return Operation(name, mx.square, ours, lambda: [(mx.arange(8.0),)], 1e-5)

    found = [operation("good", mx.square), operation("wrong", mx.abs), operation("refused", refused)]
    monkeypatch.setattr(operations, "OPERATIONS", found)
    monkeypatch.setattr(dispatch._Settings, "on_metal", lambda self: True)
    monkeypatch.setenv("QWEN35_DATA", str(tmp_path))
    yield tmp_path
    configure()


def test_every_trial_is_shown(qwen35, on_metal, monkeypatch):
    monkeypatch.setenv("QWEN35_KERNELS", "metal")
    with pytest.warns(RuntimeWarning, match="is not used, reference is"):
        out = qwen35("doctor", "--no-disk").out
    rows = {line.split()[0]: line for line in out.splitlines()}
    assert "runs ours (ours verified, error 0e+00, " in rows["good"]
    assert "; reference verified, error 0e+00, " in rows["good"]
    assert "runs reference (ours mismatch: it differs from the reference by" in rows["wrong"]
    assert "runs reference (ours failed: Unable to build metal library; " in rows["refused"]
    with warnings.catch_warnings():  # kept in the user's folder: judged once
        warnings.simplefilter("error")
        kernels = json.loads(qwen35("doctor", "--no-disk", "--json").out)["kernels"]
    assert [(k["operation"], k["used"]) for k in kernels] == [
        ("good", "ours"), ("wrong", "reference"), ("refused", "reference"),
    ]  # fmt: skip
    assert (on_metal / "kernels.json").exists()


def test_references_on_demand(qwen35, on_metal, monkeypatch):
    monkeypatch.setenv("QWEN35_KERNELS", "reference")
    out = qwen35("doctor", "--no-disk").out
    assert "3 operations run their reference: QWEN35_KERNELS=reference" in out
    assert not (on_metal / "kernels.json").exists()


def test_off_metal(qwen35):
    assert " operations run their reference: kernels are tried on Metal only" in qwen35("doctor", "--no-disk").out


@pytest.mark.parametrize("argv", [("doctor", "--no-disk"), ("run", "hello", "--max-tokens", "1")])
def test_an_unknown_choice_is_refused(qwen35, monkeypatch, argv):
    monkeypatch.setenv("QWEN35_KERNELS", "fast")
    result = qwen35(*argv)
    assert result.status == 2
    assert "QWEN35_KERNELS must be auto, metal or reference, not 'fast'" in result.err
    assert "Traceback" not in result.err
