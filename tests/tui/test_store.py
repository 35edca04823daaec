"""The history file: search, branches, two windows, crashes, damage, newer versions."""

import os
import signal
import sqlite3
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from time import perf_counter

import pytest

from qwen35_local.events import ToolCall
from tui.chat.media import Media, Sight
from tui.chat.turns import Tree, Turn
from tui.store.history import History, fts_query, new_id
from tui.store.schema import STEPS, VERSION


def say(history: History, text: str, chat: int | None = None, parent: int = 0) -> tuple[int, Turn]:
    chat = chat or new_id()
    turn = Turn(new_id(), parent, "user", text, created=time.time())
    history.put(chat, [turn], turn.id)
    return chat, turn


def test_a_turn_comes_back_as_it_was(tmp_path: Path):
    history = History(tmp_path / "h.sqlite3")
    turn = Turn(
        *(new_id(), 0, "assistant", "text\x00\ud800", "why", (ToolCall("f", {"n": 1}, "c1"),), "", "stopped", "bad"),
        *(1.5, {"tokens": 3}, (Media("a.png", "image", b"\x00\xff", (3, 4), 9),), 12.5),
    )
    history.put(7, [turn], turn.id)
    back = history.load(7)[turn.id]
    assert back.text == "text\x00?"
    assert (back.tool_calls, back.media, back.stats, back.status) == (
        turn.tool_calls,
        turn.media,
        turn.stats,
        "stopped",
    )


def test_search_finds_words_and_beginnings(tmp_path: Path):
    history = History(tmp_path / "h.sqlite3")
    chat, _ = say(history, "The whale swims in the Straße")
    say(history, "Bees fly")
    assert [entry.id for entry in history.search("whal")] == [chat]
    assert [entry.id for entry in history.search("swims whale")] == [chat]
    assert history.search("nothing like it") == []
    assert len(history.search("")) == 2
    assert "whale" in history.search("whale")[0].snippet


@pytest.mark.parametrize("words", ['"', "AND", "a OR", "NEAR(", "*", "col:x", "'; DROP TABLE turns", "(((", "-x", "^"])
def test_no_query_is_an_operator(tmp_path: Path, words: str):
    History(tmp_path / "h.sqlite3").search(words)


def test_fts_query_quotes_everything():
    assert fts_query("foo-bar b*z") == '"foo" "bar" "b" "z"*'


def test_titles_delete_undo_purge(tmp_path: Path):
    history = History(tmp_path / "h.sqlite3")
    chat, turn = say(history, "First words\nof a question")
    assert history.title(chat) == "First words of a question"
    history.rename(chat, "Named")
    history.put(chat, [turn], turn.id)
    assert history.title(chat) == "Named"
    history.delete(chat)
    assert history.chats() == []
    assert history.search("words") == []
    history.undelete(chat)
    assert [entry.id for entry in history.chats()] == [chat]
    history.delete(chat)
    history.purge(older=-1)
    history.undelete(chat)
    assert history.chats() == []


def test_branches():
    tree = Tree([Turn(1, 0, "user", "a"), Turn(2, 1, "assistant", "b"), Turn(3, 0, "user", "a2")], leaf=2)
    assert [turn.id for turn in tree.path()] == [1, 2]
    assert tree.versions(1) == [1, 3]
    assert tree.switch(1, 1)
    assert [turn.id for turn in tree.path()] == [3]
    assert not tree.switch(3, 1)
    assert tree.switch(3, -1)
    assert tree.leaf == 2


def test_two_windows_on_one_file(tmp_path: Path):
    one, two = History(tmp_path / "h.sqlite3"), History(tmp_path / "h.sqlite3")
    chat, _ = say(one, "from one")
    say(two, "from two")
    assert len(one.chats()) == len(two.chats()) == 2
    two.rename(chat, "both see it")
    assert one.title(chat) == "both see it"


def test_a_locked_file_raises_soon_and_recovers(tmp_path: Path):
    history = History(tmp_path / "h.sqlite3")
    other = sqlite3.connect(tmp_path / "h.sqlite3", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(sqlite3.OperationalError, match="locked"):
        say(history, "later")
    other.execute("ROLLBACK")
    say(history, "now")
    assert len(history.chats()) == 1


def test_a_damaged_file_is_set_aside(tmp_path: Path):
    path = tmp_path / "h.sqlite3"
    path.write_bytes(b"this is not a database, but it is somebody's" * 100)
    history = History(path)
    assert "damaged" in history.notice
    kept = list(tmp_path.glob("*.damaged-*"))
    assert len(kept) == 1
    assert kept[0].read_bytes().startswith(b"this is not")
    say(history, "goes on")
    assert len(History(path).chats()) == 1


def test_a_newer_file_is_left_alone(tmp_path: Path):
    path = tmp_path / "h.sqlite3"
    newer = sqlite3.connect(path)
    newer.execute(f"PRAGMA user_version = {VERSION + 1}")
    newer.execute("CREATE TABLE future(x)")
    newer.commit()
    newer.close()
    before = path.read_bytes()
    history = History(path)
    assert "newer version" in history.notice
    say(history, "in memory")
    history.close()
    assert path.read_bytes() == before


def test_a_file_of_an_older_version_is_taken_along(tmp_path: Path):
    path = tmp_path / "h.sqlite3"
    older = sqlite3.connect(path, isolation_level=None)
    older.executescript(f"BEGIN; {STEPS[0]} PRAGMA user_version = 1; COMMIT;")
    older.execute("INSERT INTO chats(id, title, created, updated) VALUES (1, 'old', 0, 0)")
    older.execute("INSERT INTO turns VALUES (2, 1, 0, 'user', 'words of old', '', '[]', '', 'done', '', 0, '{}', 0)")
    older.execute("INSERT INTO media VALUES (2, 0, 'a.png', 'image', x'00', 3, 4, NULL)")
    older.close()
    history = History(path)
    assert history.notice == ""
    assert history.search("old")[0].id == 1
    sight = Sight((3, 4), (32, 32), 3, (0.5,), "small")
    media = history.load(1).path()[0].media
    assert media == (Media("a.png", "image", b"\x00", (3, 4)),)
    history.see(2, [replace(media[0], sight=sight)])
    history.close()
    assert History(path).load(1).path()[0].media[0].sight == sight


def test_a_folder_that_cannot_be_made(tmp_path: Path):
    (tmp_path / "file").write_text("")
    history = History(tmp_path / "file" / "h.sqlite3")
    assert "not saved" in history.notice
    say(history, "in memory")


def test_a_partial_answer_survives_kill(tmp_path: Path):
    code = (
        "import sys, time; from pathlib import Path\n"
        "from tui.store.history import History; from tui.chat.turns import Turn\n"
        "h = History(Path(sys.argv[1]))\n"
        "h.put(1, [Turn(1, 0, 'user', 'q'), Turn(2, 1, 'assistant', 'half an ans', status='writing')], 2)\n"
        "print('written', flush=True); time.sleep(60)"
    )
    path = tmp_path / "h.sqlite3"
    child = subprocess.Popen(
        [sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE, cwd=Path(__file__).parents[2]
    )
    assert child.stdout is not None
    assert child.stdout.readline() == b"written\n"
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    child.stdout.close()
    turns = History(path).load(1).path()
    assert (turns[1].text, turns[1].status) == ("half an ans", "writing")


@pytest.mark.slow
def test_search_in_ten_thousand_messages_is_quick(tmp_path: Path):
    history = History(tmp_path / "h.sqlite3")
    words = [f"word{n}" for n in range(3000)]
    for chat in range(1, 201):
        turns = []
        for n in range(50):
            text = " ".join(words[(chat * n * 7 + k * 13) % 3000] for k in range(60))
            turns.append(Turn(chat * 1000 + n, chat * 1000 + n - 1 if n else 0, "user", text))
        history.put(chat, turns, turns[-1].id)
    times = []
    for words_ in ("word17", "word1", "word", "word5 word18"):
        began = perf_counter()
        history.search(words_)
        times.append(perf_counter() - began)
    assert max(times) < 0.05, times
