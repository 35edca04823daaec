"""Live comparison with transformers and mlx-lm: `pytest -m oracle` with the [oracle] extra installed."""

import json

import mlx.core as mx
import numpy as np
import pytest
from tiny import CASES, load

pytestmark = pytest.mark.oracle


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("case", CASES)
def test_transformers(case, checkpoints, models, golden, logits_of):
    torch = pytest.importorskip("torch")
    from transformers import Qwen3_5MoeForCausalLM  # pyright: ignore[reportMissingImports]

    theirs = Qwen3_5MoeForCausalLM.from_pretrained(checkpoints[case], dtype=torch.float32, attn_implementation="eager")
    ids = golden[f"{case}.ids"]
    with torch.no_grad():
        logits = theirs(torch.tensor(ids[None])).logits[0].numpy()
    np.testing.assert_allclose(logits, golden[f"{case}.logits"], atol=5e-4)  # the recorded vectors are still true
    ours = logits_of(models[case], ids)
    assert np.abs(ours - logits).max() <= 5e-4
    assert np.linalg.norm(ours - logits) <= 3e-5 * np.linalg.norm(logits)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("mode", "bits", "group"), [("affine", 4, 64), ("mxfp4", 4, 32), ("nvfp4", 4, 16), ("mxfp8", 8, 32)]
)
@pytest.mark.parametrize("case", ["F32", "BF16"])
def test_checkpoints_of_mlx_lm(case, mode, bits, group, checkpoints, tokenizer_spec, logits_of, tmp_path):
    """The same converted file in both: norms as the file has them, so nothing but arithmetic can differ.

    The prompt is one without a near tie in a router. (The golden one has a margin of 2e-6 at token 12 in nvfp4: both
    choices are right within float32, and the engines part there.)
    """
    pytest.importorskip("mlx_lm")
    from mlx_lm import convert  # pyright: ignore[reportMissingImports]
    from mlx_lm.utils import load_model  # pyright: ignore[reportMissingImports]

    source, path = checkpoints[case], tmp_path / "converted"
    (source / "tokenizer.json").write_text(json.dumps(tokenizer_spec))
    (source / "tokenizer_config.json").write_text('{"tokenizer_class": "PreTrainedTokenizerFast"}')
    convert(str(source), str(path), quantize=True, q_mode=mode, q_bits=bits, q_group_size=group)
    theirs, _ = load_model(path)
    theirs.set_dtype(mx.float32)
    ids = np.random.default_rng(2).integers(0, 671, 70)
    expected = np.array(theirs(mx.array(ids[None]))[0].astype(mx.float32))
    ours = logits_of(load(path), ids)
    assert np.linalg.norm(ours - expected) <= 1e-4 * np.linalg.norm(expected)
