"""`verify`, `list`, `rm`, `doctor` and `bench`, as the command line runs them."""

import json
import shutil
from pathlib import Path

import make_checkpoint
import pytest

from qwen35_local.checkpoint.files import Checkpoint
from qwen35_local.checkpoint.locate import find_model
from qwen35_local.cli import main
from qwen35_local.errors import CheckpointError
from qwen35_local.hub.manifest import Entry, Manifest
from qwen35_local.hub.progress import Meter
from qwen35_local.hub.recipe import recipe
from qwen35_local.hub.store import Parts, convert_directory
from qwen35_local.hub.verify import check_files, check_tensors


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("verify")
    release = make_checkpoint.write(root / "src", "tiny", "BF16")
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
    assert check_files(path, lambda n: None)[0].ok is None


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
    details = sorted(finding.detail for finding in check_files(model, lambda n: None))
    assert details[0] == "config.json is missing"
    assert details[1].startswith("model.safetensors.index.json has")


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"num_hidden_layers": 9, "layer_types": None}, "layers.8.input_layernorm.weight is missing"),
        ({"num_experts": 15}, "config.json asks for"),
        ({"hidden_size": 160}, "config.json asks for"),
    ],
)
def test_config_that_lies(model, change, problem):
    path = model / "config.json"
    config = json.loads(path.read_text())
    config["text_config"] |= change
    path.write_text(json.dumps(config))
    assert any(problem in finding.detail and finding.ok is False for finding in check_tensors(model))


def test_damaged_manifest(model):
    (model / "qwen35.json").write_text("{}")
    with pytest.raises(CheckpointError, match=r"qwen35\.json is damaged"):
        Manifest.read(model)
    Manifest({"../x": Entry(1, "sha256", "0")}).write(model)
    with pytest.raises(CheckpointError, match="outside the directory"):
        Manifest.read(model)


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
    assert "freed 3." in out
    assert not model.exists()
    code, out = command(capsys, "rm", "tiny")
    assert "no model 'tiny'" in out
    assert code == 2


def test_doctor(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("QWEN35_MODELS", str(tmp_path))
    monkeypatch.setattr("qwen35_local.hub.disk.FILE", 2 * 6_684_672)
    code, out = command(capsys, "doctor", "--json")
    found = json.loads(out)
    assert code == 0
    assert found["backends"]["mlx"]["ok"]
    assert found["disk"]["read"] > 0
    assert {kernel["operation"] for kernel in found["kernels"]} >= {"router_topk"}
    code, out = command(capsys, "doctor", "--no-disk")
    assert "port 8035" in out


def test_bench_and_verify_of_the_miniature(capsys):
    code, out = command(capsys, "bench", "--prompts", "5,9", "--tokens", "2")
    assert code == 0
    assert "K = 4 of 16" in out
    assert "| 9 | warm |" in out
    code, out = command(capsys, "verify", "miniature")
    assert code == 0
    assert "nats a token" in out
    assert command(capsys, "bench", "--prompts", "x")[0] == 2
