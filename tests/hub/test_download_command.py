"""`qwen35 download` as it is typed."""

import json
from pathlib import Path

import pytest

from hub.fake_hub import COMMIT, FakeHub
from hub.test_verify import command
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
    assert "every one of 5 files verified" in out
    assert f"me/model at {COMMIT[:12]}" in out
    assert Manifest.read(home / "model") is not None
    before = len(hub.requests)
    code, out = command(capsys, *words(hub))
    assert (code, len(hub.requests)) == (0, before)
    assert "is already whole" in out


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
