"""Sessions by name: what was said, who may have it, what it takes."""

import json

import pytest

from qwen35_local.engine import ImagePart, Message, TextPart
from qwen35_local.errors import ModelNotFound, SessionError, UsageError
from qwen35_local.events import ToolCall
from qwen35_local.sessions.store import Store
from qwen35_local.sessions.talk import read_talk, write_talk

TALK = (
    Message("system", "Be brief."),
    Message("user", (TextPart("what?"), ImagePart(b"\x89PNG", 4096))),
    Message("assistant", "", "hm\n", (ToolCall("f", {"a": [1, None], "b": "ü"}, "call_1"),)),
    Message("tool", "4", tool_call_id="call_1"),
    Message("assistant", "Four.", ""),
)


def test_messages_come_back(tmp_path):
    path = tmp_path / "deep" / "x.json"
    assert read_talk(path) == ()
    write_talk(path, TALK)
    assert read_talk(path) == TALK
    assert [file.name for file in path.parent.iterdir()] == ["x.json"]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda found: found["messages"].pop(), "damaged: its checksum is another"),
        (lambda found: found["messages"][0].update(content="Be long."), "damaged: its checksum is another"),
        (lambda found: found.update(format=0), "in format 0 and this program reads 1"),
        (lambda found: found.clear(), "in format None"),
    ],
)
def test_changed_files_are_refused_and_kept(tmp_path, change, sentence):
    path = tmp_path / "x.json"
    write_talk(path, TALK)
    found = json.loads(path.read_text())
    change(found)
    path.write_text(json.dumps(found))
    before = path.read_bytes()
    with pytest.raises(SessionError, match=sentence):
        read_talk(path)
    path.write_bytes(before[:-20])
    with pytest.raises(SessionError, match="cannot be read"):
        read_talk(path)
    assert path.read_bytes() == before[:-20]


@pytest.mark.parametrize("name", ["", "../x", "a/b", ".hidden", "a b", "a" * 65, "-x", "a.b", "ü"])
def test_names_are_plain(tmp_path, name):
    with pytest.raises(UsageError, match="a session's name is 1 to 64 letters"):
        Store(tmp_path).talk(name)


def test_one_process_at_a_time(tmp_path):
    store = Store(tmp_path)
    left = tmp_path / ".x.state.99.part"
    other = tmp_path / ".xy.state.99.part"
    left.touch()
    other.touch()
    with store.lock("x"):
        assert not left.exists()
        assert other.exists(), "another session's writer may be at work"
        with pytest.raises(SessionError, match="'x' is in use by another process"), store.lock("x"):
            pass
        with store.lock("y"):
            pass
    with store.lock("x"):
        pass


def test_they_are_listed_and_removed(tmp_path):
    store = Store(tmp_path)
    assert list(store) == []
    write_talk(store.talk("one"), TALK)
    write_talk(store.talk("two"), TALK[:2])
    store.state("two").write_bytes(b"broken")
    found = {stored.name: stored for stored in store}
    assert (found["one"].turns, found["one"].problem) == (5, "")
    assert "does not begin like one" in found["two"].problem
    assert found["two"].nbytes == store.talk("two").stat().st_size + 6
    assert store.remove("two", state_only=True) == 6
    assert store.find("two").problem == ""
    store.remove("two")
    with pytest.raises(ModelNotFound, match="no session 'two'"):
        store.find("two")
    assert [stored.name for stored in store] == ["one"]
