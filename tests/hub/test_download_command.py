"""`qwen35 download` as it is typed."""

import errno
import json
import os
from pathlib import Path
from typing import Any

import make_checkpoint
import pytest

from hub.fake_hub import COMMIT, FakeHub
from hub.test_catalog import LAPTOP
from hub.test_verify import command
from qwen35_local.hub.catalog import GB
from qwen35_local.hub.manifest import Manifest


@pytest.fixture(autouse=True)
def home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("QWEN35_MODELS", str(tmp_path / "models"))
    return tmp_path / "models"


def words(hub: FakeHub, *more: str) -> list[str]:
    return ["download", "--repo", "me/model", "--endpoint", hub.endpoint, *more]


def test_dry_run_fetches_nothing(hub, home, capsys):
    code, out = command(capsys, *words(hub, "--dry-run", "--json"))
    plan = json.loads(out)["plan"]
    assert code == 0
    assert plan["bytes"] == sum(len(data) for name, data in hub.files.items() if name[-3:] not in ("bin", "tes"))
    assert plan["rate"]["bytes per second"] > 0
    assert plan["licence"] == "apache-2.0"
    assert not home.exists()


def test_one_line_and_again_offline(hub, home, capsys, monkeypatch):
    code, out = command(capsys, *words(hub))
    assert code == 0
    assert "5 files verified" in out
    assert f"me/model at {COMMIT[:12]}" in out
    assert Manifest.read(home / "model") is not None
    assert "whole, from me/model\n" in command(capsys, "list")[1]
    before = len(hub.requests)
    code, out = command(capsys, *words(hub))
    assert (code, len(hub.requests)) == (0, before)
    assert "is already whole" in out


def test_the_catalogue_and_what_fits(home, capsys, monkeypatch):
    monkeypatch.setattr("qwen35_local.commands.download.this_machine", lambda: LAPTOP)
    monkeypatch.setattr("qwen35_local.commands.download.free_space", lambda path: 30 * GB)
    code, out = command(capsys, "download", "--builds", "--json")
    rows = {row["name"]: row["lacks"] for row in json.loads(out)["builds"]}
    assert code == 0
    assert (rows["397b:Q8_0"], rows["397b:4bit"], rows["35b:UD-Q3_K_XL"]) == ("memory", "disk", None)
    code, out = command(capsys, "download", "--builds")
    assert len(out.splitlines()) == len(rows) + 5
    assert max(map(len, out.splitlines())) <= 110
    code, out = command(capsys, "download", "397b:q8_0")
    assert code == 2
    assert "397b:Q8_0 needs 434 GB of memory, this machine (laptop, 30 GiB) has 32 GB" in out
    code, out = command(capsys, "download", "397b:q8_0", "--anyway", "--endpoint", "http://127.0.0.1:9")
    assert (code, "cannot reach http://127.0.0.1:9" in out) == (2, True)


def test_a_packing_of_ones_own_is_made_of_the_release(hub, capsys):
    nowhere = ("--endpoint", hub.endpoint)
    for name, repo in (("397b", "Qwen/Qwen3.5-397B-A17B"), ("35b", "Qwen/Qwen3.5-35B-A3B")):
        code, out = command(capsys, "download", name, "--quant", "affine6", *nowhere)
        assert (code, f"has no repository {repo}" in out) == (2, True)
    code, out = command(capsys, "download", "397b:4bit", "--quant", "mixed", *nowhere)
    assert (code, "use `397b --quant …`" in out) == (2, True)
    code, out = command(capsys, "download", "7b", "--quant", "mixed", *nowhere)
    assert (code, "choose 397b, 122b, 35b" in out) == (2, True)


def test_what_is_there_but_was_made_otherwise(release, hub, home, capsys):
    """Another packing, other rules or other files of one repository are not what was asked for."""
    hub.files = dict(release)
    there = ("--to", str(home / "here"))
    assert command(capsys, *words(hub, "--quant", "mxfp4", *there))[0] == 0
    assert "is already whole" in command(capsys, *words(hub, "--quant", "mxfp4", *there))[1]
    before = len(hub.requests)
    for other in (("--quant", "mixed"), ("--quant", "mxfp4", "--no-mtp"), ("--include", "*.json"), ()):
        code, out = command(capsys, *words(hub, *other, *there))
        assert (code, len(hub.requests)) == (2, before), other
        assert f"is there already, and is me/model at {COMMIT[:12]}, made otherwise" in out
    (home / "empty").mkdir()
    code, out = command(capsys, *words(hub, "--to", str(home / "empty")))
    assert (code, "was not fetched by qwen35: `qwen35 verify" in out) == (2, True)


def test_a_large_download_says_how_long_it_will_take(hub, home, capsys, monkeypatch):
    assert "on one connection" not in command(capsys, *words(hub))[1]
    monkeypatch.setattr("qwen35_local.commands.download.PROBED", 1000)
    hub.files["config.json"] = b"{}"
    assert "on one connection: about" in command(capsys, *words(hub, "--to", str(home / "elsewhere")))[1]


def test_one_build_of_many_in_parts_with_its_eyes(hub, home, capsys):
    """As GGUF repositories are: a directory for each quant, the vision tower beside them."""
    parts = {f"{quant}/m-0000{n}-of-00002.gguf": b"GGUF" + bytes([n]) * 900 for quant in ("Q4", "Q8") for n in (1, 2)}
    hub.files = parts | {"mmproj-F16.gguf": b"GGUF" * 9, "mmproj-F32.gguf": b"GGUF" * 10, "README.md": b"#"}
    code, out = command(capsys, *words(hub))
    assert code == 2
    assert "has 2 builds: choose one with --include 'Q4/*'" in out
    code, out = command(capsys, *words(hub, "--include", "Q4/*", "--include", "mmproj-F16.gguf", "--dry-run"))
    assert (code, "runs with  llama.cpp" in out) == (0, True)
    code, out = command(capsys, *words(hub, "--include", "Q4/*", "--include", "mmproj-F16.gguf"))
    assert code == 0
    there = {file.relative_to(home).as_posix() for file in (home / "model-Q4").rglob("*.gguf")}
    assert there == {"model-Q4/" + name for name in (*list(parts)[:2], "mmproj-F16.gguf")}
    del hub.files["Q8/m-00002-of-00002.gguf"]
    code, out = command(capsys, *words(hub, "--include", "Q8/*"))
    assert (code, "is incomplete: it has no Q8/m-00002-of-00002.gguf" in out) == (2, True)


def test_revision_and_place(hub, tmp_path, capsys):
    code, out = command(capsys, *words(hub, "--revision", "nope"))
    assert code == 2
    assert "has no revision 'nope'" in out
    code, out = command(capsys, *words(hub, "--revision", COMMIT, "--to", str(tmp_path / "a place with spaces é")))
    assert code == 0
    code, out = command(capsys, "download", "--repo", "you/other", "--endpoint", hub.endpoint)
    assert code == 2
    assert "has no repository you/other" in out


def test_what_cannot_fit_is_refused_with_both_numbers(hub, home, capsys, monkeypatch):
    monkeypatch.setattr("qwen35_local.hub.download.free_space", lambda path: 5_000_000)
    code, out = command(capsys, *words(hub))
    assert code == 2
    assert "1.0 MB are still to come and 1.1 GB stay free" in out
    assert "has 5.0 MB" in out
    assert not hub.seen("cdn")


def test_offline_without_the_model(hub, capsys, monkeypatch):
    import huggingface_hub.constants as constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    code, out = command(capsys, *words(hub))
    assert code == 2
    assert "HF_HUB_OFFLINE is set" in out


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    path = make_checkpoint.write(tmp_path_factory.mktemp("release") / "src", "tiny", "BF16", shards=3)
    return {file.name: file.read_bytes() for file in path.iterdir()}


def test_a_conversion_is_planned_from_headers(release, hub, home, capsys, monkeypatch):
    hub.files = dict(release)
    code, out = command(capsys, *words(hub, "--quant", "mixed", "--dry-run", "--json"))
    plans = [json.loads(line)["plan"] for line in out.splitlines()]
    assert code == 0
    assert "after" not in plans[0]["disk"]
    assert plans[1]["classes"]["routed experts"]["as"] == {"mxfp4": 24}
    assert 0 < plans[1]["bytes"] < plans[1]["source bytes"]
    assert not home.exists()
    monkeypatch.setattr("qwen35_local.hub.store.free_space", lambda path: 5_000_000)
    code, out = command(capsys, *words(hub, "--quant", "mixed", "--dry-run"))
    assert code == 2
    assert "free, but the disk of" in out
    assert "has 5.0 MB: free 1.1 GB, or choose another disk" in out


def test_what_is_no_release_leaves_nothing_behind(release, hub, home, tmp_path, capsys):
    """A checkpoint that is quantised already: found out after its headers came."""
    hub.files = dict(release)
    code, _ = command(capsys, *words(hub, "--quant", "mxfp4"))
    assert code == 0
    hub.files = {file.name: file.read_bytes() for file in (home / "model-mxfp4").iterdir()}
    code, out = command(capsys, *words(hub, "--quant", "affine4", "--endpoint", hub.endpoint))
    assert code == 2
    assert "already" in out
    assert [path.name for path in home.iterdir()] == ["model-mxfp4"]


def test_a_home_that_is_not_there_yet_and_one_that_cannot_be_written(hub, home, capsys, monkeypatch):
    monkeypatch.delenv("QWEN35_MODELS")
    monkeypatch.setenv("HOME", str(home / "not" / "there"))
    code, out = command(capsys, *words(hub))
    assert code == 0
    assert (home / "not" / "there" / ".qwen35" / "models" / "model" / "config.json").exists()
    real = Path.mkdir

    def mkdir(self: Path, *args: Any, **options: Any) -> None:
        if "read-only" in str(self):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        real(self, *args, **options)

    monkeypatch.setattr(Path, "mkdir", mkdir)
    monkeypatch.setenv("HOME", str(home / "read-only"))
    code, out = command(capsys, *words(hub))
    assert code == 2
    assert "cannot be written (Read-only file system): choose another place" in out
    assert "Traceback" not in out


def test_a_whole_hub_cache_serves_offline(release, tokenizer_spec, tmp_path, capsys, monkeypatch):
    """What huggingface_hub itself fetched opens, is listed and verified without a network."""
    from huggingface_hub import constants, snapshot_download

    files = dict(release) | {"tokenizer.json": json.dumps(tokenizer_spec).encode()}
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    with FakeHub(files) as hub:
        snapshot_download("me/model", endpoint=hub.endpoint, cache_dir=tmp_path / "cache")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "in the Hub cache" in command(capsys, "list")[1]
    code, out = command(capsys, "verify", "me/model", "--no-forward")
    assert code == 0
    assert "files are what the Hub's cache says they should be" in out
