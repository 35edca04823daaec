"""`memory=`: the same answers from a fraction of the memory, telemetry, refusals, a failing disk."""

import errno
import os
import shutil
import subprocess
from collections.abc import Generator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from faults import FaultyReader
from pack_checkpoint import pack

import qwen35_local
from qwen35_local.backends.mlx import MlxEngine
from qwen35_local.config import Streaming
from qwen35_local.errors import ExpertReadError, MemoryPlanError, UsageError
from qwen35_local.experts import budget
from qwen35_local.experts.source import Source
from qwen35_local.server.metrics import Metrics

QUESTION = "word " * 30


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, tokenizer_spec) -> Path:
    """The tiny checkpoint with packed experts, and a tokenizer."""
    import json

    from make_checkpoint import write

    root = tmp_path_factory.mktemp("memory")
    path = pack(write(root / "released", "tiny", "F32"), root / "packed", "mxfp4")
    (path / "tokenizer.json").write_text(json.dumps(tokenizer_spec))
    return path


def opened(path: Path, **options: Any) -> MlxEngine:
    engine = qwen35_local.open(path, **options)
    assert isinstance(engine, MlxEngine)
    return engine


def answer(engine: MlxEngine):
    return engine.complete(QUESTION, max_tokens=12, temperature=0)


@pytest.fixture
def small(monkeypatch) -> None:
    """Plans without the room that a process and its temporaries take, which dwarfs this model."""
    monkeypatch.setattr(budget, "_process", lambda g: 0)
    monkeypatch.setattr(budget, "_temporaries", lambda g, tokens, context: 0)


def test_the_same_answer_from_less_memory(model, small):
    with opened(model) as engine:
        assert engine.plan.resident
        assert engine.experts is None
        wanted = answer(engine)
        assert "experts" not in wanted.done.stats.extra
    for memory in ("9MB", "9.5MB", "60MB"):
        with opened(model, memory=memory, context=256) as engine:
            assert engine.plan.total <= engine.plan.budget
            assert engine.plan.resident == (memory == "60MB")
            for found in (answer(engine), answer(engine)):
                assert found.text == wanted.text
                assert found.reasoning == wanted.reasoning
            said = answer(engine).done.stats.extra["experts"]
            assert 0 < said["hit_rate"] <= 1
            assert (said["bytes_read"] == 0) == engine.plan.resident


def test_logits_are_equal_to_the_bit(model, small):
    ids = list(range(90))
    with opened(model) as engine:
        wanted = engine.logits(ids)
    with opened(model, memory="9MB", context=256) as engine:
        assert np.array_equal(engine.logits(ids), wanted)


def test_a_hot_set_is_remembered_and_only_advice(model, small, tmp_path):
    hot = tmp_path / "data" / "hot.json"
    with opened(model) as engine:
        wanted = answer(engine).text
    begun = []
    for content in (None, None, "{", '{"version": 1, "layers": {"layers.0.mlp": [99, 3, 3, -1]}}', '{"version": 1}'):
        if content is not None:
            hot.write_text(content)
        engine = opened(model, context=256, memory="9MB", streaming=Streaming(hot_set=hot))
        assert engine.experts is not None
        held = sum(int((bank.slot_of >= 0).sum()) for bank in engine.experts.banks)
        assert answer(engine).text == wanted
        engine.close()
        begun.append(held)
    assert begun[0] == begun[2] == begun[4] == 0
    assert begun[1] > 8
    assert begun[3] == 1, "99 and -1 are no experts of this model"


def test_every_layer_on_demand(model, small):
    with opened(model, memory="9MB", context=256, streaming=Streaming(layer_stats=True)) as engine:
        said = answer(engine).done.stats.extra["experts"]
        layers = said["layers"]
        assert [layer["slots"] for layer in layers] == list(engine.plan.slots)
        assert sum(layer["bytes_read"] for layer in layers) == said["bytes_read"] > 0
        assert (
            min(layer["hit_rate"] for layer in layers) <= said["hit_rate"] <= max(layer["hit_rate"] for layer in layers)
        )
        text = metrics_of(answer(engine).done)
        assert f'qwen35_backend_experts_layer_slots{{layer="7"}} {layers[7]["slots"]}' in text
        assert any(line.startswith("qwen35_backend_experts_hit_rate 0.") for line in text)
    with opened(model, memory="9MB", context=256) as engine:
        assert "layers" not in answer(engine).done.stats.extra["experts"]


def metrics_of(done: qwen35_local.Done) -> list[str]:
    metrics = Metrics()
    metrics.done(done)
    return list(metrics.backend())


def test_refusals(model):
    with pytest.raises(MemoryPlanError, match=r"needs at least .* the budget is 100\.00 MB: raise"):
        opened(model, memory="100MB")
    with pytest.raises(UsageError, match="size like 24GB"):
        opened(model, memory="plenty")
    with pytest.raises(UsageError, match="lookahead must be from 0 to 64, not -1"):
        opened(model, streaming=Streaming(lookahead=-1))


def test_a_prompt_is_one_sweep_and_says_how_far_it_is(model, small):
    with opened(model, memory="9.7MB", context=512) as engine:
        events = list(engine.chat("word " * 60, max_tokens=1))
        steps = [event for event in events if isinstance(event, qwen35_local.Progress)]
        assert len(steps) >= 8
        assert [step.done for step in steps] == sorted(step.done for step in steps)
        done = events[-1]
        assert isinstance(done, qwen35_local.Done)
        all_experts = engine.plan.geometry.experts_nbytes
        assert done.stats.extra["experts"]["bytes_read"] <= all_experts


def test_after_a_failure_the_engine_answers_again(model, small, monkeypatch):
    reader = FaultyReader()
    monkeypatch.setattr("qwen35_local.backends.memory.Source", lambda direct, workers: Source(workers=2, reader=reader))
    with opened(model) as engine:
        wanted = answer(engine).text
    with opened(model, memory="9MB", context=256) as engine:
        assert answer(engine).text == wanted
        reader.fault = lambda views, offset: OSError(errno.EIO, "Input/output error")
        with pytest.raises(ExpertReadError, match=r"cannot read expert \d+ of layers\.\d+\.mlp from model-0000"):
            engine.complete("another " * 40, max_tokens=3)
        reader.fault = lambda views, offset: None
        assert answer(engine).text == wanted


def test_a_file_truncated_under_the_engine_is_a_sentence(model, small, tmp_path):
    path = shutil.copytree(model, tmp_path / "model")
    with opened(path, memory="9MB", context=256) as engine:
        answer(engine)
        for file in path.glob("*.safetensors"):
            with file.open("r+b") as damaged:
                damaged.truncate(1000)
        with pytest.raises(ExpertReadError, match=r"model-0000.*safetensors (was truncated|changed)"):
            engine.complete("another " * 40, max_tokens=3)


def test_a_cancelled_sweep_leaves_a_usable_session(model, small):
    with opened(model, memory="9.7MB", context=512) as engine:
        wanted = answer(engine).text
        events = engine.chat("word " * 60, max_tokens=1)
        assert isinstance(events, Generator)
        next(events)
        next(events)
        events.close()
        assert answer(engine).text == wanted


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0 or not Path("/dev/loop0").exists(), reason="mounts")
def test_a_disk_that_is_gone_and_comes_back(model, small, tmp_path):
    """A real EIO: the file system that the model lies on loses the disk under it, and gets it back."""
    image, mount = tmp_path / "image", tmp_path / "disk"
    mount.mkdir()
    image.write_bytes(bytes(48 << 20))
    subprocess.run(["mkfs.ext4", "-q", "-d", str(model), str(image)], check=True)
    subprocess.run(["mount", "-o", "loop,ro", str(image), str(mount)], check=True)
    try:
        with opened(mount, memory="9MB", context=256, streaming=Streaming(direct=True)) as engine:
            wanted = answer(engine)
            content = image.read_bytes()
            os.truncate(image, 4096)
            with pytest.raises(ExpertReadError, match=r"cannot read expert \d+ of layers.* Input/output error"):
                engine.complete("another " * 40, max_tokens=3)
            with image.open("r+b") as back:
                back.write(content)
            assert answer(engine).message == wanted.message
            said = answer(engine).done.stats.extra["experts"]
            assert said["bytes_read"] > 0
    finally:
        subprocess.run(["umount", str(mount)], check=True)
