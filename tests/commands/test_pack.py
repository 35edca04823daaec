"""`qwen35 pack`: a store beside the model, used from then on."""

import argparse
import shutil

import pytest
from make_checkpoint import write
from pack_checkpoint import pack
from tiny import opened

from qwen35_local.backends.memory import expert_layouts
from qwen35_local.commands import pack as command
from qwen35_local.errors import CheckpointError, UsageError


@pytest.fixture
def model(tmp_path):
    return pack(write(tmp_path / "released", "tiny", "F32"), tmp_path / "model", "mxfp4")


def run(*argv: str) -> int:
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    return command.run(parser.parse_args(argv))


def test_the_store_is_made_verified_and_used(model, capsys):
    weights, config = opened(model)
    assert expert_layouts(model, weights, config.text)[0].files[0].suffix == ".safetensors"
    assert run(str(model)) == 0
    assert capsys.readouterr().out.strip() == str(model / "experts")
    assert run(str(model), "--verify") == 0
    assert expert_layouts(model, weights, config.text)[3].files == (model / "experts" / "layer-003.experts",)


def test_a_full_disk_is_refused_before_the_first_byte(model, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(100, 90, 10))  # pyright: ignore[reportAttributeAccessIssue]
    with pytest.raises(UsageError, match=r"the store needs 1\.67 MB of disk and .* has 0\.00 MB: choose another --to"):
        run(str(model))
    assert not (model / "experts").exists()


def test_a_store_may_lie_elsewhere_but_not_beside_another_checkpoint(model, tmp_path, capsys):
    """Another fine-tuning has experts of the same names and sizes."""
    assert run(str(model), "--to", str(tmp_path / "fast")) == 0
    weights, config = opened(model)
    assert expert_layouts(model, weights, config.text)[0].files[0].suffix == ".safetensors"
    layouts = expert_layouts(model, weights, config.text, store=tmp_path / "fast")
    assert layouts[7].files == (tmp_path / "fast" / "layer-007.experts",)
    with pytest.raises(CheckpointError, match=r"is not a packed store: it has no experts\.json"):
        expert_layouts(model, weights, config.text, store=tmp_path)
    released = write(tmp_path / "tuned-released", "tiny", "F32", seed=1)
    for mode, same_packing in (("mxfp4", True), ("mxfp8", False)):
        other = pack(released, tmp_path / mode, mode)
        weights, config = opened(other)
        theirs = weights.expert_layouts(config.text)[0]
        assert (theirs.parts == layouts[0].parts) == same_packing
        with pytest.raises(
            CheckpointError, match=r"layer-000\.experts was packed from another checkpoint: its experts are"
        ):
            expert_layouts(other, weights, config.text, store=tmp_path / "fast")
