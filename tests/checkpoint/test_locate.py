import pytest

from qwen35_local.checkpoint.locate import MINIATURE, find_model
from qwen35_local.errors import ModelNotFound


def test_a_directory_is_itself(tmp_path):
    assert find_model(tmp_path) == tmp_path.resolve()
    assert find_model("miniature") == MINIATURE


def test_a_hub_cache_entry_is_its_main_revision(tmp_path):
    entry = tmp_path / "models--owner--name"
    (entry / "refs").mkdir(parents=True)
    (entry / "refs" / "main").write_text("abc\n")
    with pytest.raises(ModelNotFound, match="incomplete"):
        find_model(entry)
    (entry / "snapshots" / "abc").mkdir(parents=True)
    assert find_model(entry) == entry / "snapshots" / "abc"


def test_a_cached_repository_by_name(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ModelNotFound, match="no such repository in the Hub cache"):
        find_model("owner/name")
    entry = tmp_path / "models--owner--name"
    (entry / "refs").mkdir(parents=True)
    revision = "0" * 40
    (entry / "refs" / "main").write_text(revision)
    (entry / "snapshots" / revision).mkdir(parents=True)
    (entry / "snapshots" / revision / "config.json").write_text("{}")
    assert find_model("owner/name") == entry / "snapshots" / revision


def test_what_is_not_there(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ModelNotFound, match="is a file"):
        find_model(tmp_path / "file")
    with pytest.raises(ModelNotFound, match="no model at"):
        find_model(tmp_path / "nothing")
