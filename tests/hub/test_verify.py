"""`verify`, `list`, `rm`, `doctor` and `bench`, as the command line runs them."""

import hashlib
import json
import os
import shutil
import sys
from pathlib import Path

import make_checkpoint
import mlx.core as mx
import numpy as np
import pytest

from hub.fake_hub import git_hash
from qwen35_local.checkpoint.files import Checkpoint
from qwen35_local.checkpoint.locate import find_model
from qwen35_local.cli import main
from qwen35_local.commands.doctor import MISSING
from qwen35_local.commands.verify import judged
from qwen35_local.errors import CheckpointError
from qwen35_local.gguf.convert import Types
from qwen35_local.gguf.convert import convert as gguf_convert
from qwen35_local.hub.known import known_hashes, known_hashes_of
from qwen35_local.hub.manifest import Entry, Manifest
from qwen35_local.hub.place import Workplace, occupied
from qwen35_local.hub.progress import Meter
from qwen35_local.hub.recipe import recipe
from qwen35_local.hub.store import Parts, convert_directory
from qwen35_local.hub.verify import check_files, check_tensors


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("verify")
    release = make_checkpoint.write(root / "src", "tiny", "BF16", vision=True)
    home = root / "models"
    home.mkdir()
    convert_directory(release, home / "tiny", recipe("mxfp4"), Parts(), Meter(1, 1, "converted", quiet=True))
    return home


@pytest.fixture
def model(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("QWEN35_MODELS", str(tmp_path / "models"))
    return Path(shutil.copytree(home / "tiny", tmp_path / "models" / "tiny"))


def command(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    with pytest.raises(SystemExit) as exit_:
        main(words)
    out, err = capsys.readouterr()
    code = exit_.value.code
    assert isinstance(code, int)
    return code, out + err


def test_whole_and_found_by_name(model, capsys):
    assert find_model("tiny") == model
    code, out = command(capsys, "verify", "tiny", "--no-forward", "--json")
    found = json.loads(out)
    assert code == 0
    assert found["ok"]
    assert [check["check"] for check in found["checks"]] == ["hashes", "headers", "tensors"]


@pytest.mark.parametrize("layout", ["F32", "BF16"])
def test_released_layout(tmp_path, layout):
    path = make_checkpoint.write(tmp_path / "src", "tiny", layout)
    assert [f.ok for f in check_tensors(path)] == [True, True]
    assert check_files(path, known_hashes(path), lambda n: None)[0].ok is None


def test_one_wrong_bit(model, capsys):
    file = next(model.glob("*.safetensors"))
    data = bytearray(file.read_bytes())
    data[-5] ^= 1
    file.write_bytes(data)
    code, out = command(capsys, "verify", str(model), "--no-forward")
    assert code == 1
    assert f"{file.name} is damaged: its hash is" in out


def test_missing_and_cut_files(model):
    (model / "config.json").unlink()
    index = model / "model.safetensors.index.json"
    index.write_bytes(index.read_bytes()[:-1])
    details = sorted(finding.detail for finding in check_files(model, known_hashes(model), lambda n: None))
    assert details[0] == "config.json is missing"
    assert details[1].startswith("model.safetensors.index.json has")


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"num_hidden_layers": 9, "layer_types": None}, "layers.8.input_layernorm.weight is missing"),
        ({"num_experts": 15}, "config.json asks for"),
        ({"moe_intermediate_size": 96}, "config.json asks for"),
    ],
)
def test_config_that_lies(model, change, problem):
    path = model / "config.json"
    config = json.loads(path.read_text())
    config["text_config"] |= change
    path.write_text(json.dumps(config))
    assert any(problem in finding.detail and finding.ok is False for finding in check_tensors(model))


def without(path: Path, part: str) -> Path:
    """The same checkpoint without the tensors whose names hold `part`."""
    (path / "model.safetensors.index.json").unlink(missing_ok=True)
    for file in path.glob("*.safetensors"):
        tensors = mx.load(str(file))
        assert isinstance(tensors, dict)
        fresh = file.with_name("fresh.safetensors")
        mx.save_safetensors(str(fresh), {name: array for name, array in tensors.items() if part not in name})
        fresh.replace(file)
    return path


@pytest.mark.parametrize(
    ("part", "problem"),
    [
        ("layers.3.self_attn.q_norm", "layers.3.self_attn.q_norm.weight is missing"),
        ("mtp.layers.0.mlp.experts.3.up", "mtp.layers.0.mlp.experts.3.up_proj is missing"),
        ("vision_tower.blocks.1.attn.qkv.bias", "visual.blocks.1.attn.qkv.bias is missing"),
        ("vision_tower.merger.linear_fc2.weight", "visual.merger.linear_fc2 is missing"),
    ],
)
def test_a_tensor_is_missing(model, part, problem):
    findings = check_tensors(without(model, part))
    assert [f.detail for f in findings if f.ok is False] == [problem]


def test_tower_and_head_may_be_absent_as_a_whole(model):
    assert check_tensors(model)[1].detail.endswith("in its shape; with the vision tower, with the MTP head")
    (finding,) = check_tensors(without(without(model, "vision_tower."), "mtp."))[1:]
    assert finding.ok
    assert finding.detail.endswith("without the vision tower, without the MTP head")


def test_a_tower_of_another_size(model):
    path = model / "config.json"
    config = json.loads(path.read_text())
    config["vision_config"]["intermediate_size"] += 4
    path.write_text(json.dumps(config))
    details = [f.detail for f in check_tensors(model) if f.ok is False]
    assert len(details) == 3 * 3
    assert "config.json asks for" in details[0]
    del config["vision_config"]
    path.write_text(json.dumps(config))
    assert "no vision_config in config.json" in check_tensors(model)[1].detail


def test_damaged_manifest(model):
    (model / "qwen35.json").write_text("{}")
    with pytest.raises(CheckpointError, match=r"qwen35\.json is damaged"):
        Manifest.read(model)
    Manifest({"../x": Entry(1, "sha256", "0")}).write(model)
    with pytest.raises(CheckpointError, match="outside the directory"):
        Manifest.read(model)


def test_a_tokenizer_or_weights_of_another_model():
    """The forward pass judges what was learned, not only that numbers come out."""
    ids, logits = [3, 1, 2], np.zeros((3, 8), np.float32)
    assert judged(ids, 1, logits).detail == "all logits are equal"
    logits[0, 1], logits[1, 2] = 3, 3
    assert judged(ids, 1, logits).ok
    logits = -logits
    assert "no better than guessing (2.08)" in judged(ids, 1, logits).detail
    logits[2, 0] = np.nan
    assert judged(ids, 1, logits).detail == "1 logits are NaN or infinite"


def test_files_of_the_hubs_cache(model, tmp_path):
    """Its links tell the hashes: of a large file SHA-256, of a small one Git's."""
    entry = tmp_path / "models--me--tiny"
    snapshot = entry / "snapshots" / "c0ffee"
    (entry / "blobs").mkdir(parents=True)
    snapshot.mkdir(parents=True)
    for file in model.iterdir():
        data = file.read_bytes()
        name = hashlib.sha256(data).hexdigest() if file.suffix == ".safetensors" else git_hash(data)
        (entry / "blobs" / name).write_bytes(data)
        if file.name != "qwen35.json":
            (snapshot / file.name).symlink_to(Path("../../blobs") / name)
    assert [f.ok for f in check_files(snapshot, known_hashes(snapshot), lambda n: None)] == [True]
    blob = (snapshot / "config.json").resolve()
    blob.write_bytes(blob.read_bytes().replace(b"8", b"9", 1))
    (snapshot / "model.safetensors.index.json").resolve().unlink()
    details = [f.detail for f in check_files(snapshot, known_hashes(snapshot), lambda n: None)]
    assert details[0].startswith("config.json is damaged: its hash is")
    assert details[1:] == ["model.safetensors.index.json is missing"]


def test_files_of_hf_download(model):
    """As `hf download --local-dir` leaves them, by huggingface_hub's own writer."""
    from huggingface_hub._local_folder import write_download_metadata

    (model / "qwen35.json").unlink()
    for file in [f for f in model.iterdir() if f.is_file()]:
        write_download_metadata(model, file.name, "c0ffee", hashlib.sha256(file.read_bytes()).hexdigest())
    (finding,) = check_files(model, known_hashes(model), lambda n: None)
    assert (finding.ok, "hf download" in finding.detail) == (True, True)
    (model / "config.json").unlink()
    (finding,) = check_files(model, known_hashes(model), lambda n: None)
    assert (finding.ok, finding.detail) == (False, "config.json is missing")


# ---- GGUF ---------------------------------------------------------------------------------------------------------
@pytest.fixture
def gguf(pristine: Path, tmp_path: Path) -> Path:
    out = tmp_path / "tiny.gguf"
    for _ in gguf_convert(pristine, out, Types("f32", "f32")):
        pass
    return out


def test_a_gguf_file(gguf, capsys):
    code, out = command(capsys, "verify", str(gguf), "--no-forward", "--json")
    found = json.loads(out)["checks"]
    assert (code, [(c["check"], c["ok"]) for c in found]) == (
        0, [("hashes", None), ("headers", True), ("tensors", True)]
    )  # fmt: skip
    data = gguf.read_bytes()
    Manifest({gguf.name: Entry(len(data), "sha256", hashlib.sha256(data).hexdigest())}).write(gguf.parent)
    assert command(capsys, "verify", str(gguf), "--no-forward")[0] == 0
    gguf.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    code, out = command(capsys, "verify", str(gguf.parent), "--no-forward")
    assert code == 1
    assert "tiny.gguf is damaged: its hash is" in out
    gguf.write_bytes(data[:-40])
    code, out = command(capsys, "verify", str(gguf), "--no-forward")
    assert code == 1
    assert "headers   FAILED   tiny.gguf is truncated" in out
    part = gguf.rename(gguf.with_name("tiny-00001-of-00002.gguf"))
    code, out = command(capsys, "verify", str(part), "--no-forward")
    assert code == 1
    assert "the first is tiny-00002-of-00002.gguf" in out


def test_a_gguf_file_of_a_repository(gguf, tmp_path):
    """Known to the manifest a directory above, or by its link into the Hub's cache; never by a walk over all there."""
    data = gguf.read_bytes()
    digest = hashlib.sha256(data).hexdigest()
    (tmp_path / "repo" / "Q4").mkdir(parents=True)
    inside = gguf.rename(tmp_path / "repo" / "Q4" / "m.gguf")
    assert known_hashes_of([inside]) == (inside.parent, None)
    Manifest({"Q4/m.gguf": Entry(len(data), "sha256", digest)}).write(tmp_path / "repo")
    directory, known = known_hashes_of([inside])
    assert known is not None
    assert (directory, known.origin, list(known.files)) == (tmp_path / "repo", "qwen35.json", ["Q4/m.gguf"])
    (tmp_path / "blobs").mkdir()
    inside.rename(tmp_path / "blobs" / digest)
    link = tmp_path / "linked.gguf"
    link.symlink_to(Path("blobs") / digest)
    _, known = known_hashes_of([link])
    assert known is not None
    assert (known.origin, known.files["linked.gguf"].digest) == ("the Hub's cache", digest)


def test_the_forward_pass_of_a_gguf_file(gguf, capsys, monkeypatch):
    """Made with the library where it is installed; else said to be skipped, with what to install, and no failure."""
    monkeypatch.setitem(sys.modules, "llama_cpp", None)
    monkeypatch.setitem(sys.modules, "llama_cpp.llama_cpp", None)
    code, out = command(capsys, "verify", str(gguf))
    assert code == 0
    assert "forward   skipped  GGUF models need llama-cpp-python: " in out


def test_the_miniature_as_gguf_answers(tmp_path, capsys):
    """A repository as they are on the Hub: a directory for each quant. Its forward pass is a real one."""
    pytest.importorskip("llama_cpp")
    (tmp_path / "repo" / "Q4").mkdir(parents=True)
    for _ in gguf_convert(find_model("miniature"), tmp_path / "repo" / "Q4" / "m.gguf", Types("auto", "auto")):
        pass
    code, out = command(capsys, "verify", str(tmp_path / "repo"))
    assert code == 0
    assert "tensors in 1 file, without gap or cut" in out
    assert "'What is 2 + 2?' is answered with '4' at 0." in out


def test_list_and_rm(model, capsys, monkeypatch):
    model.with_name("half.partial").mkdir()
    code, out = command(capsys, "list")
    assert code == 0
    assert "half" in out
    assert "unfinished" in out
    assert "tiny" in out
    code, out = command(capsys, "rm", "tiny")
    assert code == 2
    assert "use --yes" in out
    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    monkeypatch.setattr("builtins.input", lambda prompt: "n")
    assert command(capsys, "rm", "tiny")[0] == 1
    assert Checkpoint.open(model)
    code, out = command(capsys, "rm", "tiny", "--yes")
    assert code == 0
    assert "freed 5." in out
    assert not model.exists()
    code, out = command(capsys, "rm", "tiny")
    assert "no model 'tiny'" in out
    assert code == 2


def test_a_conversion_onto_a_model_is_refused_before_its_plan(model, capsys):
    code, out = command(capsys, "convert", "miniature", str(model))
    assert code == 2
    assert f"{model} exists already: remove it first" in out
    assert "packed as" not in out


def test_what_is_being_fetched_is_not_removed(model, capsys):
    with Workplace(model.with_name("half")) as place:
        code, out = command(capsys, "rm", "half", "--yes")
        assert code == 2
        assert f"another process (pid {os.getpid()}) is already working on half" in out
        assert place.path.exists()
    assert command(capsys, "rm", "half", "--yes")[0] == 0
    assert not place.path.exists()


def test_a_removal_that_was_killed_can_be_finished(model, capsys, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("shutil.rmtree", lambda path: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            main(["rm", "tiny", "--yes"])
    out = command(capsys, "list")[1]
    assert ".tiny.removed" in out
    assert "half removed" in out
    assert command(capsys, "rm", ".tiny.removed", "--yes")[0] == 0
    assert not list(model.parent.iterdir())


def test_links_take_no_disk(tmp_path):
    (tmp_path / "blobs").mkdir()
    (tmp_path / "blobs" / "b").write_bytes(bytes(range(256)) * 400)
    (tmp_path / "link").symlink_to("blobs/b")
    assert occupied(tmp_path) == occupied(tmp_path / "blobs") > 100_000


def test_doctor(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("QWEN35_MODELS", str(tmp_path))
    monkeypatch.setattr("qwen35_local.hub.disk.FILE", 2 * 6_684_672)
    code, out = command(capsys, "doctor", "--json")
    found = json.loads(out)
    assert code == 0
    assert found["backends"]["mlx"]["ok"]
    assert found["disk"]["read"] > 0
    assert {kernel["operation"] for kernel in found["kernels"]} >= {"router_topk"}
    assert found["hub"] | {"cache": ""} == {
        "endpoint": "https://huggingface.co", "token": False, "offline": False, "cache": "",
    }  # fmt: skip
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.setattr("qwen35_local.commands.doctor._version", lambda package: MISSING)
    code, out = command(capsys, "doctor", "--no-disk")
    assert "port 8035" in out
    assert "with a token" in out
    assert "hf_secret" not in out
    assert "pip install 'qwen35-local[video]'" in out


def test_bench_and_verify_of_the_miniature(capsys):
    code, out = command(capsys, "bench", "--prompts", "5,9", "--tokens", "2")
    assert code == 0
    assert "K = 4 of 16" in out
    assert "| 9 | warm |" in out
    code, out = command(capsys, "verify", "miniature")
    assert code == 0
    assert "'What is 2 + 2?' is answered with '4' at 0." in out
    assert command(capsys, "bench", "--prompts", "x")[0] == 2
