"""Pictures and clips in the model of transformers itself: `pytest -m oracle` with the [oracle] extra installed."""

import mlx.core as mx
import numpy as np
import pytest
from make_checkpoint import write
from seen import answered, close, spans_of, tower_of
from tiny import opened
from vision_cases import CASES, GRIDS, Shown

from qwen35_local.model.positions import positions_of
from qwen35_local.model.qwen35 import Qwen35

pytestmark = [pytest.mark.oracle, pytest.mark.filterwarnings("ignore")]
YARN = {"": 1.0, "yarn4.": 4.0}


@pytest.fixture(scope="module")
def theirs() -> dict[str, np.ndarray]:
    pytest.importorskip("torch")
    from make_golden import tower, vision

    shown = [vision(CASES, prefix, yarn) for prefix, yarn in YARN.items()]
    return tower() | shown[0] | shown[1]


@pytest.fixture(scope="module")
def ours(tmp_path_factory):
    root = tmp_path_factory.mktemp("seeing")
    found = {}
    for prefix, yarn in YARN.items():
        weights, config = opened(write(root / f"x{yarn}", "tiny", "F32", yarn=yarn, vision=True))
        found[prefix] = Qwen35(weights, config.text), tower_of(weights, config)
    return found


@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_features(ours, theirs, grid):
    found = np.array(ours[""][1](mx.array(Shown(grid).patches()), grid))
    expected = theirs[f"features.{'x'.join(map(str, grid))}"]
    assert np.linalg.norm(found - expected) <= 1e-5 * np.linalg.norm(expected)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("prefix", YARN)
def test_positions_logits_and_greedy_tokens(ours, theirs, prefix, case):
    ids, _, spans = spans_of(case)
    positions = positions_of(len(ids), spans)
    np.testing.assert_array_equal(positions[:, :-1], theirs[f"{prefix}{case}.positions"])
    model, eyes = ours[prefix]
    logits, delta, greedy = answered(model, eyes, case)
    assert delta == positions[0, -1] - len(ids) == theirs[f"{prefix}{case}.delta"] < 0
    close(logits, theirs[f"{prefix}{case}.logits"])
    assert greedy == theirs[f"{prefix}{case}.greedy"].tolist()


@pytest.mark.parametrize("prefix", YARN)
def test_the_recorded_vectors_are_still_true(theirs, prefix):
    from pathlib import Path

    recorded = np.load(Path(__file__).parent.parent / "golden" / "vision.npz")
    names = [name for name in recorded if name.startswith("yarn4.") == bool(prefix)]
    assert names
    for name in names:
        np.testing.assert_allclose(theirs[name], recorded[name], atol=5e-4, err_msg=name)
