"""mlx-lm opens what we convert, and its own conversion has the same bits where the recipe is the same."""

import make_checkpoint
import mlx.core as mx
import numpy as np
import pytest
from tiny import load

from hub.test_convert import IDS, all_tensors, meter
from qwen35_local.hub.recipe import recipe
from qwen35_local.hub.store import Parts, convert_directory

pytestmark = pytest.mark.oracle


@pytest.mark.parametrize("name", ["mxfp4", "affine4", "mixed"])
def test_mlx_lm_opens_it(tmp_path, name):
    from mlx_lm.utils import load_model  # pyright: ignore[reportMissingImports]

    release = make_checkpoint.write(tmp_path / "src", "tiny", "BF16", vision=True)
    out = convert_directory(release, tmp_path / "out", recipe(name), Parts(), meter())
    model, _ = load_model(out)
    model.set_dtype(mx.float32)
    theirs = np.array(model(IDS))
    ours_model = load(out)
    ours = np.array(ours_model.logits(ours_model(IDS, ours_model.new_state())))
    assert np.abs(theirs - ours).max() < 0.05 * ours.std()


@pytest.mark.parametrize(("name", "mode"), [("mxfp4", "mxfp4"), ("affine4", "affine"), ("nvfp4", "nvfp4")])
def test_the_bits_are_those_of_mlx_lm(tmp_path, name, mode):
    from mlx_lm.utils import load_model, quantize_model  # pyright: ignore[reportMissingImports]

    release = make_checkpoint.write(tmp_path / "src", "tiny", "BF16", vision=True)
    ours = all_tensors(convert_directory(release, tmp_path / "out", recipe(name), Parts(), meter()))
    model, config = load_model(release)
    default = recipe(name).default
    model, _ = quantize_model(model, config, default.group_size, default.bits, mode=mode)
    from mlx.utils import tree_flatten

    theirs = dict(tree_flatten(model.parameters()))
    packed = [n for n in theirs if n.endswith(".scales")]
    assert len(packed) > 50
    for scales in packed:
        for suffix in ("weight", "scales", "biases"):
            key = scales.replace(".scales", f".{suffix}")
            if key in theirs:
                assert mx.array_equal(theirs[key], ours[key]), key
