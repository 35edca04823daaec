"""Conversions: the bits of `mx.quantize`, a checkpoint that opens and computes, the plan of the full-size model."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import make_checkpoint
import mlx.core as mx
import numpy as np
import pytest
from tiny import load, opened
from vision_cases import GRIDS, Shown

from hub.conftest import QUICK
from hub.fake_hub import FakeHub
from hub.test_kills import environment
from qwen35_local.checkpoint.files import Checkpoint
from qwen35_local.checkpoint.names import canonical
from qwen35_local.errors import CheckpointError, StorageError, UsageError
from qwen35_local.hub import store
from qwen35_local.hub.conversion import plan_conversion
from qwen35_local.hub.manifest import Manifest
from qwen35_local.hub.place import partial_of
from qwen35_local.hub.progress import Meter
from qwen35_local.hub.recipe import packing, read_rules, recipe
from qwen35_local.hub.remote import list_repository
from qwen35_local.hub.skeleton import GUESS
from qwen35_local.hub.store import Parts, convert_directory, convert_repository
from qwen35_local.media import rules as media_rules
from qwen35_local.model.qwen35 import Qwen35
from qwen35_local.model.vision import VisionTower

IDS = mx.array([[5, 17, 600, 3, 250, 99, 42]])


def meter() -> Meter:
    return Meter(1, 1, "converted", quiet=True)


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With a vision tower, as released."""
    return make_checkpoint.write(tmp_path_factory.mktemp("release") / "src", "tiny", "BF16", shards=5, vision=True)


def hashes(path: Path) -> dict[str, str]:
    manifest = Manifest.read(path)
    assert manifest is not None
    return {name: entry.digest for name, entry in manifest.files.items()}


@pytest.fixture(scope="module")
def converted(release: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("converted")
    names = ("mxfp4", "nvfp4", "affine4", "mixed")
    return {name: convert_directory(release, root / name, recipe(name), Parts(), meter()) for name in names}


@pytest.mark.parametrize("name", ["mxfp4", "nvfp4", "affine4", "mixed"])
def test_tensors_are_those_of_mx_quantize(release, converted, name):
    source, result = all_tensors(release), all_tensors(converted[name])
    config = json.loads((converted[name] / "config.json").read_text())["quantization"]
    checked = 0
    for module in (n.removesuffix(".scales") for n in result if n.endswith(".scales")):
        if ".mtp." in module:
            continue
        entry = config.get(module, config)
        options = {key: entry[key] for key in ("group_size", "bits", "mode")}
        want = mx.quantize(released_weight(source, module), **options)
        got = [result[f"{module}.{suffix}"] for suffix in ("weight", "scales", "biases")[: len(want)]]
        assert all(mx.array_equal(a, b) for a, b in zip(got, want, strict=True)), module
        checked += 1
    assert checked == {"mixed": 8 * 3 + 8 * 3 + 2 * 4 + 6 * 3 + 2}.get(name, 8 * 5 + 8 * 3 + 2 * 4 + 6 * 5 + 2)


def all_tensors(path: Path) -> dict[str, mx.array]:
    tensors: dict[str, mx.array] = {}
    for file in path.glob("*.safetensors"):
        tensors |= mx.load(str(file))  # pyright: ignore[reportOperatorIssue, reportArgumentType, reportCallIssue]
    return tensors


def released_weight(source: dict[str, mx.array], module: str) -> mx.array:
    name = module.replace("language_model.model.", "model.language_model.").replace("language_model.lm_head", "lm_head")
    if ".switch_mlp." not in name:
        return source[f"{name}.weight"]
    stem, part = name.split(".switch_mlp.")
    if part == "down_proj":
        return source[f"{stem}.experts.down_proj"]
    fused = source[f"{stem}.experts.gate_up_proj"]
    return mx.split(fused, 2, axis=1)[part == "up_proj"]


@pytest.mark.parametrize("name", ["mxfp4", "affine4", "mixed"])
def test_our_loader_computes_with_it(release, converted, name, tmp_path):
    """The same logits as the release has whose matrices were unpacked again, in float32."""
    source = {name: array.astype(mx.float32) for name, array in all_tensors(release).items()}
    result = all_tensors(converted[name])
    config = json.loads((converted[name] / "config.json").read_text())["quantization"]
    fused: dict[str, dict[str, mx.array]] = {}
    for module in (n.removesuffix(".scales") for n in result if n.endswith(".scales") and ".mtp." not in n):
        entry = config.get(module, config)
        scales, biases = (result.get(f"{module}.{part}") for part in ("scales", "biases"))
        assert scales is not None
        if biases is not None:
            scales, biases = scales.astype(mx.float32), biases.astype(mx.float32)
        options = {key: entry[key] for key in ("group_size", "bits", "mode")}
        weight = mx.dequantize(result[f"{module}.weight"], scales, biases, **options).astype(mx.float32)
        path = module.replace("language_model.model.", "model.language_model.").replace("language_model.lm_", "lm_")
        if ".switch_mlp." in path:
            stem, part = path.split(".switch_mlp.")
            fused.setdefault(stem, {})[part] = weight
        else:
            source[f"{path}.weight"] = weight
    for stem, parts in fused.items():
        source[f"{stem}.experts.gate_up_proj"] = mx.concatenate([parts["gate_proj"], parts["up_proj"]], axis=1)
        source[f"{stem}.experts.down_proj"] = parts["down_proj"]
    unpacked = tmp_path / "unpacked"
    unpacked.mkdir()
    mx.save_safetensors(str(unpacked / "model.safetensors"), source)
    shutil.copy(release / "config.json", unpacked)
    a, b = (np.array(m.logits(m(IDS, m.new_state()))) for m in (load(unpacked), load(converted[name])))
    assert np.abs(a - b).max() < 2e-3 * a.std()


def test_nothing_packed_is_the_same_model(release, tmp_path):
    """All matrices kept: every logit equal, so names, norms and convolutions arrive as they left."""
    rules = recipe("mxfp4").with_rules({"*": "bf16"})
    same = convert_directory(release, tmp_path / "same", rules, Parts(), meter())
    ends = []
    for weights, config in (opened(release), opened(same)):
        model = Qwen35(weights, config.text, mtp=True)
        state = model.new_state()
        hidden = model(IDS, state)
        assert model.mtp is not None
        embedded = model.embed_tokens.rows(IDS[:, 1:], mx.float32)
        guessed = model.mtp(hidden[:, :-1], embedded, model.rope, state)
        ends.append([np.array(model.logits(rows)) for rows in (hidden, guessed)])
    np.testing.assert_array_equal(ends[0][0], ends[1][0])
    np.testing.assert_array_equal(ends[0][1], ends[1][1])


@pytest.mark.parametrize("name", ["mxfp4", "affine4"])
def test_the_vision_tower_comes_along_unpacked(release, converted, name):
    """Its features are those of the release to the bit, and the files that say how to show it pictures are there."""
    seen = []
    for path in (release, converted[name]):
        weights, config = opened(path)
        assert config.vision is not None
        seen.append(np.array(VisionTower(weights, config.vision)(mx.array(Shown(GRIDS[3]).patches()), GRIDS[3])))
        assert media_rules.read_rules(path) == media_rules.read_rules(release)
    np.testing.assert_array_equal(*seen)
    assert {"preprocessor_config.json", "video_preprocessor_config.json"} < set(hashes(converted[name]))
    assert "vision_config" in json.loads((converted[name] / "config.json").read_text())


def test_parts_are_left_out_when_asked(release, tmp_path):
    """And what is left is a whole text model."""
    out = convert_directory(release, tmp_path / "out", recipe("mxfp4"), Parts(vision=False, mtp=False), meter())
    names = {canonical(name).split(".")[0] for name in Checkpoint.open(out).tensors}
    assert names == {"embed_tokens", "layers", "norm", "lm_head"}
    load(out)


def test_small_pieces_make_the_same_files(release, converted, tmp_path, monkeypatch):
    monkeypatch.setattr("qwen35_local.hub.convert.PIECE", 1000)
    again = convert_directory(release, tmp_path / "again", recipe("mxfp4"), Parts(), meter())
    assert hashes(again) == hashes(converted["mxfp4"])


def test_rules_from_a_file(release, tmp_path):
    file = tmp_path / "rules.toml"
    file.write_text('"layers.0.mlp.experts.*" = "affine8"\n"lm_head" = "bf16"\n')
    rules = recipe("mxfp4").with_rules(read_rules(file))
    out = convert_directory(release, tmp_path / "out", rules, Parts(mtp=False), meter())
    entry = json.loads((out / "config.json").read_text())["quantization"]
    path = "language_model.model.layers.0.mlp.switch_mlp.up_proj"
    assert entry[path] == {"group_size": 64, "bits": 8, "mode": "affine"}
    assert entry["language_model.lm_head"] is False
    assert not any(".mtp." in name for name in Checkpoint.open(out).tensors)
    load(out)
    file.write_text('layers.0 = "affine8"')
    with pytest.raises(UsageError, match="must be one packing in quotes"):
        read_rules(file)
    with pytest.raises(UsageError, match="no packing 'q4'"):
        packing("q4")


def test_what_is_no_release_is_refused(converted):
    with pytest.raises(CheckpointError, match=r"quantised already|MLX conversion already"):
        plan_conversion(Checkpoint.open(converted["mxfp4"]).tensors, recipe("mxfp4"))


def test_disk_too_small(release, tmp_path, monkeypatch):
    monkeypatch.setattr(store, "free_space", lambda path: 2_000_000)
    with pytest.raises(StorageError, match=r"needs 5\.0 MB and leaves 1\.1 GB free, but .* has 2\.0 MB"):
        convert_directory(release, tmp_path / "out", recipe("mxfp4"), Parts(), meter())


def full_after(nbytes: int) -> Callable[..., int]:
    """`os.pwrite` on a disk with so much room."""
    left, real = [nbytes], os.pwrite

    def pwrite(handle: int, data: bytes, offset: int) -> int:
        left[0] -= len(data)
        if left[0] < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(handle, data, offset)

    return pwrite


def test_disk_full_in_the_middle(release, converted, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", full_after(1_500_000))
        with pytest.raises(StorageError, match="is full: what is there already is kept; make room"):
            convert_directory(release, tmp_path / "out", recipe("mxfp4"), Parts(), meter())
    assert not (tmp_path / "out").exists()
    out = convert_directory(release, tmp_path / "out", recipe("mxfp4"), Parts(), meter())
    assert hashes(out) == hashes(converted["mxfp4"])


@pytest.mark.parametrize("name", ["model-00003-of-00005.safetensors.part", "config.json.new", "out.partial"])
def test_disk_full_at_the_rename(release, converted, tmp_path, monkeypatch, name):
    real = Path.replace

    def replace(self: Path, target: Path) -> Path:
        if self.name == name:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", replace)
        with pytest.raises(StorageError, match="run the same line again"):
            convert_directory(release, tmp_path / "out", recipe("mxfp4"), Parts(), meter())
    assert not (tmp_path / "out").exists()
    out = convert_directory(release, tmp_path / "out", recipe("mxfp4"), Parts(), meter())
    assert hashes(out) == hashes(converted["mxfp4"])


def test_a_source_that_cannot_be_read(release, tmp_path, monkeypatch):
    """Its own name and reason, not the target's."""

    def pread(handle: int, nbytes: int, offset: int) -> bytes:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patch:
        patch.setattr(os, "pread", pread)
        with pytest.raises(CheckpointError, match=r"in .*src/model.* cannot be read: Input/output error"):
            convert_directory(release, tmp_path / "out", recipe("mxfp4"), Parts(), meter())


def test_another_recipe_does_not_reuse_shards(release, converted, tmp_path, monkeypatch):
    calls = [0]
    real = store.convert_shard

    def dies(*args):
        calls[0] += 1
        if calls[0] == 3:
            raise KeyboardInterrupt
        return real(*args)

    with monkeypatch.context() as patch:
        patch.setattr(store, "convert_shard", dies)
        with pytest.raises(KeyboardInterrupt):
            convert_directory(release, tmp_path / "out", recipe("affine4"), Parts(), meter())
    assert len(list(partial_of(tmp_path / "out").glob("model-*.safetensors"))) == 2
    out = convert_directory(release, tmp_path / "out", recipe("mxfp4"), Parts(), meter())
    assert hashes(out) == hashes(converted["mxfp4"])


# ---- while it is fetched ------------------------------------------------------------------------------------------
def test_streamed_from_a_hub(release, converted, tmp_path):
    with FakeHub({file.name: file.read_bytes() for file in release.iterdir()}) as hub:
        listing = list_repository("me/model", endpoint=hub.endpoint)
        target = convert_repository(listing, tmp_path / "out", recipe("mxfp4"), Parts(), meter(), QUICK)
    assert hashes(target) == hashes(converted["mxfp4"])
    assert {p.name for p in target.iterdir()} == {*hashes(target), "qwen35.json"}


def test_a_tight_disk_holds_one_source_shard_at_a_time(release, converted, tmp_path, monkeypatch):
    largest = max(file.stat().st_size for file in release.glob("*.safetensors"))
    result = plan_conversion(Checkpoint.open(release).tensors, recipe("mxfp4")).data_bytes
    monkeypatch.setattr(store, "free_space", lambda path: result + store.MARGIN + 2 * largest - 1)
    held = []
    real = store.convert_shard

    def look(shard, source, *rest):
        held.append(len(list(source.parent.glob("*.safetensors"))))
        return real(shard, source, *rest)

    monkeypatch.setattr(store, "convert_shard", look)
    with FakeHub({file.name: file.read_bytes() for file in release.iterdir()}) as hub:
        listing = list_repository("me/model", endpoint=hub.endpoint)
        target = convert_repository(listing, tmp_path / "out", recipe("mxfp4"), Parts(), meter(), QUICK)
    assert set(held) == {1}
    assert hashes(target) == hashes(converted["mxfp4"])


def test_a_resumed_conversion_holds_no_more_shards_than_a_new_one(release, converted, tmp_path, monkeypatch):
    """However many were done before: shards come faster here than they are converted."""
    real, held, died = store.convert_shard, [], [False]

    def dies_late(shard, source, directory, on_bytes):
        if shard.name.startswith("model-00004") and not died[0]:
            died[0] = True
            raise KeyboardInterrupt
        if died[0]:
            time.sleep(0.15)
            held.append(len({file.name.split(".part")[0] for file in source.parent.glob("*-of-*")}))
        return real(shard, source, directory, on_bytes)

    monkeypatch.setattr(store, "convert_shard", dies_late)
    monkeypatch.setattr(store, "AT_ONCE", 1)
    with FakeHub({file.name: file.read_bytes() for file in release.iterdir()}) as hub:
        listing = list_repository("me/model", endpoint=hub.endpoint)
        with pytest.raises(KeyboardInterrupt):
            convert_repository(listing, tmp_path / "out", recipe("mxfp4"), Parts(), meter(), QUICK)
        target = convert_repository(listing, tmp_path / "out", recipe("mxfp4"), Parts(), meter(), QUICK)
    assert hashes(target) == hashes(converted["mxfp4"])
    assert len(held) == 5
    assert max(held) == 1


# ---- killed -------------------------------------------------------------------------------------------------------
def convert_kills(release: Path, converted: Path, tmp_path: Path, kills: int) -> None:
    """In a loop of one process after another, killed at random moments of their work."""
    luck, target, hit, done = np.random.default_rng(35), tmp_path / "out", 0, 0
    command = [sys.executable, "-m", "qwen35_local.cli", "convert", str(release), str(target), "--quant", "mxfp4"]
    while hit < kills:
        process = subprocess.Popen(command, env=environment(tmp_path), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        while not partial_of(target).exists() and not target.exists() and process.poll() is None:
            time.sleep(0.005)
        time.sleep(luck.uniform(0, 0.4))
        process.send_signal(int(luck.choice([signal.SIGKILL, signal.SIGTERM, signal.SIGINT])))
        process.communicate(timeout=30)
        hit += 1
        if target.exists():
            done += 1
            assert hashes(target) == hashes(converted)
            target.rename(tmp_path / f"done-{hit}")
    subprocess.run(command, env=environment(tmp_path), check=True, capture_output=True, timeout=60)
    assert hashes(target) == hashes(converted)
    print(f"{kills} kills over {done + 1} conversions, all of them with the same hashes")
    load(target)


def test_some_kills(release, converted, tmp_path):
    convert_kills(release, converted["mxfp4"], tmp_path, 2)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_hundred_kills(release, converted, tmp_path):
    convert_kills(release, converted["mxfp4"], tmp_path, 100)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_hundred_kills_while_it_is_fetched_and_converted(tmp_path, monkeypatch):
    """`qwen35 download --quant mxfp4` of 0.18 GB: shards come, are converted and go; killed at any moment of it."""
    middle = replace(make_checkpoint.PRESETS["mid"], layers=4, experts=8)
    monkeypatch.setitem(make_checkpoint.PRESETS, "middle", middle)
    release = make_checkpoint.write(tmp_path / "release", "middle", "BF16", shards=9)
    wanted = hashes(convert_directory(release, tmp_path / "wanted", recipe("mxfp4"), Parts(), meter()))
    with FakeHub({file.name: file.read_bytes() for file in release.iterdir()}, rate=2e6) as hub:
        luck, target = np.random.default_rng(36), tmp_path / "models" / "model-mxfp4"
        options = ("--repo", "me/model", "--endpoint", hub.endpoint, "--quant", "mxfp4")
        command = [sys.executable, "-m", "qwen35_local.cli", "download", *options]
        done = 0
        for _ in range(100):
            before = hub.sent
            process = subprocess.Popen(
                command, env=environment(tmp_path), stdout=subprocess.PIPE, stderr=subprocess.PIPE
            )
            while hub.sent == before and not target.exists() and process.poll() is None:
                time.sleep(0.005)
            time.sleep(luck.uniform(0, 1))
            process.send_signal(int(luck.choice([signal.SIGKILL, signal.SIGTERM, signal.SIGINT])))
            process.communicate(timeout=60)
            if target.exists():
                done += 1
                assert hashes(target) == wanted
                shutil.rmtree(target)
        hub.rate = None
        subprocess.run(command, env=environment(tmp_path), check=True, capture_output=True, timeout=120)
        assert hashes(target) == wanted
        shards = [len(data) for name, data in hub.files.items() if name.endswith(".safetensors")]
        once = (done + 1) * (sum(shards) + len(shards) * GUESS)  # of a shard its header comes first, by itself
        lost = hub.sent - once
        print(f"100 kills over {done + 1} conversions, {lost / 1e5:.0f} kB fetched twice for each: {lost / once:.2%}")
        assert lost < 0.03 * once


# ---- at full size -------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def full_size(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All tensors of the 397B in 94 shards: headers, and holes for the data."""
    return make_checkpoint.write_skeleton(tmp_path_factory.mktemp("full"), make_checkpoint.RELEASED, 94)


@pytest.mark.parametrize(
    ("name", "gigabytes"),
    [("mxfp4", 210.6), ("affine4", 223.0), ("nvfp4", 223.0), ("affine8", 421.1), ("mxfp8", 408.7)],
)
def test_full_size_plan(full_size, name, gigabytes):
    """Against the sizes computed for the released model, to 0.1 GB; routers at 8 bits add 0.07 to the 4-bit ones."""
    plan = plan_conversion(Checkpoint.open(full_size).tensors, recipe(name), vision=False, mtp=False)
    assert plan.source_bytes / 1e9 == pytest.approx(792.7, abs=0.05)
    assert plan.data_bytes / 1e9 == pytest.approx(gigabytes, abs=0.1)


def test_full_size_experts_and_extras(full_size):
    plan = plan_conversion(Checkpoint.open(full_size).tensors, recipe("affine4"))
    classes = plan.classes()
    assert classes["routed experts"]["out"] == 217_432_719_360  # as the public 4-bit build has them
    assert classes["embedding and head"]["out"] == 2 * 248_320 * 4096 * 9 // 16
    assert classes["vision"]["out"] / 1e9 == pytest.approx(0.91, abs=0.01)
    plan = plan_conversion(Checkpoint.open(full_size).tensors, recipe("mxfp4"))
    assert plan.classes()["routed experts"]["out"] == 60 * 512 * 6_684_672  # 6.375 MiB each
    assert plan.classes()["mtp"]["out"] / 1e9 == pytest.approx(3.5, abs=0.05)
    assert plan.source_bytes / 1e9 == pytest.approx(806.8, abs=0.5)
    assert len(plan.shards) == 94
    largest = max(shard.source_bytes for shard in plan.shards)
    assert plan.data_bytes + store.MARGIN + largest < 230e9  # of disk free is enough
