"""The tower, three-axis positions and early fusion against recorded transformers (tests/golden/vision.json)."""

from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from make_checkpoint import PRESETS, draw, encode, tensors, tower, write, write_safetensors
from seen import Tile, answered, close, spans_of, tower_of
from tiny import opened
from vision_cases import CASES, GRIDS, Shown

from qwen35_local.engine import Prompt, Span
from qwen35_local.errors import ConfigError
from qwen35_local.model import blas, vision
from qwen35_local.model.fusion import Fused
from qwen35_local.model.positions import positions_of
from qwen35_local.model.qwen35 import Qwen35, drained
from qwen35_local.model.vision import VisionTower
from qwen35_local.model.vision_config import VisionConfig


@pytest.fixture(scope="module")
def seeing(tmp_path_factory) -> dict[str, tuple[Qwen35, VisionTower]]:
    root, found = tmp_path_factory.mktemp("seeing"), {}
    for prefix, yarn in (("", 1.0), ("yarn4.", 4.0)):
        weights, config = opened(write(root / f"x{yarn}", "tiny", "F32", yarn=yarn, vision=True))
        found[prefix] = Qwen35(weights, config.text), tower_of(weights, config)
    return found


@pytest.fixture(scope="module")
def recorded() -> dict[str, np.ndarray]:
    return dict(np.load(Path(__file__).parent.parent / "golden" / "vision.npz"))


@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_features(seeing, recorded, grid):
    ours = np.array(seeing[""][1](mx.array(Shown(grid).patches()), grid))
    theirs = recorded[f"features.{'x'.join(map(str, grid))}"]
    assert np.linalg.norm(ours - theirs) <= 1e-5 * np.linalg.norm(theirs)
    assert np.abs(ours - theirs).max() <= 1e-5 * np.abs(theirs).max()


@pytest.mark.parametrize("case", CASES)
def test_positions(recorded, case):
    ids, _, spans = spans_of(case)
    ours = positions_of(len(ids), spans)
    np.testing.assert_array_equal(ours[:, :-1], recorded[f"{case}.positions"])
    assert ours[0, -1] - len(ids) == recorded[f"{case}.delta"]
    assert (ours[:, -1] == ours[0, -1]).all()


def test_positions_of_text_are_its_tokens():
    np.testing.assert_array_equal(positions_of(5, []), np.tile(np.arange(6), (3, 1)))


@pytest.mark.parametrize("pieces", [(1000,), (1, 3, 5, 4, 1000)], ids=["whole", "pieces"])
@pytest.mark.parametrize("case", [*CASES, "yarn4.image-and-video"])
def test_logits_and_greedy_tokens(seeing, recorded, case, pieces):
    """Prompts whole and in pieces that end inside of pictures; then tokens one by one by the state's `rope_delta`."""
    prefix, _, name = case.rpartition(".")
    model, eyes = seeing[prefix + "." if prefix else ""]
    logits, delta, greedy = answered(model, eyes, name, pieces)
    close(logits, recorded[f"{case}.logits"])
    assert delta == recorded[f"{case}.delta"] < 0
    assert greedy == recorded[f"{case}.greedy"].tolist()


def test_a_snapshot_between_pictures_keeps_its_delta(seeing):
    model, _ = seeing[""]
    ids, _, spans = spans_of("two-images")
    mark = spans[0].start + spans[0].tokens + 2
    fused = Fused(positions_of(len(ids), spans))
    state = model.new_state()
    _, snapshots = drained(model.run(mx.array(ids[None]), state, [mark], fused))
    assert snapshots[0].tokens == mark
    assert snapshots[0].rope_delta == fused.positions[0, mark] - mark
    assert state.rope_delta < snapshots[0].rope_delta < 0


def test_scores_in_small_portions_and_padded_heads_change_nothing(seeing, monkeypatch):
    """What bounds memory for large pictures, and what Metal's fused attention needs, on a small one."""
    eyes, it = seeing[""][1], Shown((3, 8, 4))
    expected = eyes(mx.array(it.patches()), it.grid)
    monkeypatch.setattr(vision, "SCORES", 1)  # 16 queries of one frame at a time, the fewest
    monkeypatch.setattr(vision, "ROWS", 7)
    for block in eyes.blocks:
        monkeypatch.setattr(block.attn, "padded", vision.padded_head_dim(block.attn.head_dim))
        assert block.attn.padded == 80
    assert mx.allclose(eyes(mx.array(it.patches()), it.grid), expected, rtol=1e-5, atol=1e-5)


def test_numpy_attends_as_mlx_does():
    """On a CPU ours; what runs on Metal is MLX's."""
    rng = np.random.default_rng(3)
    q, k, v = (mx.array(rng.standard_normal((2, 3, n, 72)).astype(np.float32)) for n in (5, 9, 9))
    ours, theirs = blas.attention(q, k, v, 0.3), mx.fast.scaled_dot_product_attention(q, k, v, scale=0.3)
    np.testing.assert_allclose(np.array(ours), np.array(theirs), atol=2e-6)


def test_frames_do_not_see_each_other(seeing):
    eyes, it = seeing[""][1], Shown((2, 4, 4))
    together = eyes(mx.array(it.patches()), it.grid)
    alone = eyes(mx.array(it.patches()[16:]), (1, 4, 4))
    assert mx.allclose(together[4:], alone, atol=1e-5)


def test_the_layout_of_mlx_conversions(seeing, tmp_path):
    """`vision_tower.…` with the patch filters' channels last, as mlx-vlm writes them."""
    source = write(tmp_path / "released", "tiny", "F32", vision=True)
    entries = []
    specs = [*tensors(PRESETS["tiny"]), *tower(PRESETS["tiny"])]
    for index, (name, shape, kind) in enumerate(specs):
        values = draw(np.random.default_rng([0, index]), shape, kind)
        if name.startswith("model.visual."):
            name = "vision_tower." + name.removeprefix("model.visual.")
            if values.ndim == 5:
                values = np.ascontiguousarray(values.transpose(0, 2, 3, 4, 1))
            entries.append((name, "F32", values.shape, encode(values, "F32")))
    (tmp_path / "mlx").mkdir()
    write_safetensors(tmp_path / "mlx" / "model.safetensors", entries)
    (tmp_path / "mlx" / "config.json").write_text((source / "config.json").read_text())
    weights, config = opened(tmp_path / "mlx")
    it = Shown((1, 4, 6))
    ours = tower_of(weights, config)(mx.array(it.patches()), it.grid)
    assert mx.array_equal(ours, seeing[""][1](mx.array(it.patches()), it.grid))


@pytest.mark.parametrize("family", [name.removeprefix("model.visual.") for name, *_ in tower(PRESETS["tiny"])][:15])
def test_every_family_of_tensors_moves_the_features(seeing, family, tmp_path):
    """A test of the tests: were one ignored, or put in another's place, the parity above would notice."""
    eyes, it, moved = seeing[""][1], Shown((1, 4, 6)), 0
    expected = np.array(eyes(mx.array(it.patches()), it.grid))
    path, entries = tmp_path / "shuffled", []
    write(path, "tiny", "F32", vision=True)
    offset = len(list(tensors(PRESETS["tiny"])))
    for index, (name, shape, kind) in enumerate(tower(PRESETS["tiny"])):
        values = draw(np.random.default_rng([0, offset + index]), shape, kind)
        if name.endswith(family.replace("blocks.0.", "")):
            flat = values.reshape(-1).copy()
            np.random.default_rng(5).shuffle(flat)
            values, moved = flat.reshape(shape), moved + 1
        entries.append((name, "F32", shape, encode(values, "F32")))
    for shard in path.glob("*.safetensors*"):
        shard.unlink()
    write_safetensors(path / "model.safetensors", entries)
    weights, config = opened(path)
    ours = np.array(tower_of(weights, config)(mx.array(it.patches()), it.grid))
    assert moved
    # A softmax does not see what is added to all keys, so a third of this bias cannot move anything.
    assert np.linalg.norm(ours - expected) > (0.02 if family.endswith("bias") else 0.1) * np.linalg.norm(expected)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"hidden_act": "silu"}, "hidden_act"),
        ({"deepstack_visual_indexes": [8]}, "deepstack"),
        ({"num_position_embeddings": 50}, "square"),
        ({"depth": 0}, "depth"),
        ({"out_hidden_size": 64}, "out_hidden_size of vision_config is 64, the model's hidden_size 128"),
        ({"num_heads": 7}, "head"),
    ],
)
def test_configs_that_are_refused(change, word):
    from make_checkpoint import vision_config

    values = vision_config(PRESETS["tiny"], None)["vision_config"]
    assert VisionConfig.from_dict(values, 128).head_dim == 72
    with pytest.raises(ConfigError, match=word):
        VisionConfig.from_dict(values | change, 128)


def test_identity_tells_pictures_apart():
    it = Shown((1, 4, 6))
    same, other = Tile(it, "a"), Tile(it, "b")
    ids = [1, 2, 9, 9, 9, 9, 9, 9, 3]
    first, again, differs = (Prompt(ids, [Span(2, 2, 3, tile)]).identity for tile in (same, Tile(it, "a"), other))
    assert first == again != differs
    assert first[:2] == (1, 2)
    assert len(set(first[2:8])) == 6
    assert all(token < 0 for token in first[2:8])
    assert first[2] != differs[2]
    assert Prompt(ids).identity == tuple(ids)
