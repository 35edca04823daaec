"""What goes wrong around the app: sizes, interrupts, hostile text, a dying engine, a history that cannot be written."""

import os
import pty
import re
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from driven import CALL, png, run
from PIL import Image
from rich.color import Color as RichColor
from rich.segment import Segment
from textual import events
from textual.color import Color

from qwen35_local.commands.chat import overrides
from qwen35_local.errors import ModelNotFound
from qwen35_local.events import Progress
from tui.settings import Preferences

DEFAULT = RichColor.default()
ROOT = Path(__file__).parents[2]


@run
async def test_99_resize_while_streaming(drive):
    async with drive(["# Title\n\n" + "many words here " * 60 + "\n\n```py\nx = 1\n```"], delay=0.003) as d:
        await d.say("Hi", wait=False)
        await d.until(lambda: "many" in d.text)
        for size in ((20, 5), (140, 45), (1, 1), (80, 24)):
            await d.pilot.resize_terminal(*size)
            await d.pilot.pause()
        await d.until(lambda: not d.app.talk.busy)
        await d.pilot.pause()
        assert "x = 1" in d.text
        assert d.text.count("many words here") > 10


@run
async def test_100_interrupt_while_loading(drive):
    go = threading.Event()

    def slow(on_progress):
        on_progress(Progress("load", 1, 4, "bytes"))
        go.wait(10)
        raise ModelNotFound("there is no such model")

    async with drive(open_engine=slow) as d:
        await d.say("Hi", wait=False)
        await d.until(lambda: d.app.talk.busy)
        await d.press("escape")
        await d.until(lambda: not d.app.talk.busy)
        assert "stopped" in d.text
        await d.say("Hi again", wait=False)
        go.set()
        await d.until(lambda: "there is no such model" in d.text)
        assert d.app.is_running


@pytest.mark.parametrize("key", ["escape", "ctrl+c"])
@run
async def test_100_interrupt_in_prefill_thinking_and_tool(drive, key: str):
    replies = ["x", "thinking " * 400, "</think>\n\n" + CALL * 40]
    async with drive(replies, delay=0.02, chunk=4, overrides={"thinking": True}) as d:
        await d.say("a long question " * 10, wait=False)
        await d.until(lambda: d.app.talk.answer and d.app.talk.answer.progress)
        await d.press(key)
        await d.until(lambda: not d.app.talk.busy)
        d.engine._session._delay = 0.002
        await d.press("ctrl+n")
        await d.say("q", wait=False)
        await d.until(lambda: "Thinking for" in d.text)
        await d.press(key)
        await d.until(lambda: not d.app.talk.busy)
        assert [turn.status for turn in d.app.talk.tree.path()] == ["done", "stopped"]
        await d.say("use it", wait=False)
        await d.until(lambda: d.app.talk.live and "function" in d.app.talk.live.text)
        await d.press(key)
        await d.until(lambda: not d.app.talk.busy)
        assert d.app.talk.tree.path()[-1].status == "stopped"


def test_101_plain_lines_without_a_terminal():
    out = subprocess.run(
        [sys.executable, "-m", "qwen35_local.cli", "chat", "--model", "/nowhere"],
        input=b"hi\n", capture_output=True, cwd=ROOT, timeout=120, check=False,
    )  # fmt: skip
    assert out.returncode == 2
    assert b"\x1b" not in out.stdout + out.stderr


@pytest.mark.parametrize("theme", ["ansi-dark", "ansi-light", "qwen-contrast"])
@run
async def test_101_sixteen_colours(drive, theme: str):
    async with drive(["**a** `b`\n\n```py\nx = 'y'\n```"], overrides={"theme": theme}) as d:
        await d.say("Hi")
        assert "x = 'y'" in d.text
        styles = [
            segment.style for line in d.app.chat.transcript.page.column._drawn.values() for s in line for segment in s
        ]
        colors = [style.color for style in styles if style and style.color]
        await d.press("f3")
        listed = [segment for line in d.app.screen._compositor.render_strips() for segment in line]
        plain, chosen = (next(s.style for s in listed if word in s.text) for word in ("tools", "thinking"))
        assert (plain.reverse, plain.bgcolor) != (chosen.reverse, chosen.bgcolor), "what is chosen cannot be told"
        if theme.startswith("ansi"):
            assert not any(color.is_default is False and color.type.name == "TRUECOLOR" for color in colors)


@pytest.mark.parametrize("env", [{"TERM": "dumb"}, {"TERM": ""}], ids=["dumb", "unset"])
def test_101_plain_lines_in_a_dumb_terminal(env: dict[str, str], tmp_path: Path):
    """A terminal that cannot place its cursor gets a conversation in plain lines."""
    main, side = pty.openpty()
    child = subprocess.Popen(
        [sys.executable, "-m", "qwen35_local.cli", "chat", "--model", "/nowhere"],
        stdin=side, stdout=side, stderr=side, cwd=ROOT, env={**os.environ, **env}, start_new_session=True,
    )  # fmt: skip
    os.close(side)
    seen = b""
    try:
        while chunk := os.read(main, 65536):
            seen += chunk
    except OSError:
        pass
    os.close(main)
    assert child.wait(60) == 2
    assert b"\x1b" not in seen
    assert b"/nowhere" in seen


@run
async def test_101_no_color(drive, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("NO_COLOR", "1")
    async with drive(["plain"]) as d:
        assert d.app.no_color
        d.app.prefer(theme="qwen-light")
        await d.say("Hi")
        assert "plain" in d.text
        await d.press("f3")
        styles = [segment.style for line in d.app.screen._compositor.render_strips() for segment in line]
        for one in d.app._filters:
            styles = [s.style for s in one.apply([Segment("", style) for style in styles], Color.parse("black"))]
        assert not [style for style in styles if style and not (style.color or DEFAULT).is_default]
        assert not [style for style in styles if style and not (style.bgcolor or DEFAULT).is_default]
        assert any(style and style.bold and style.underline for style in styles), "what is chosen cannot be told"


def test_102_starts_and_leaves_in_a_terminal(tmp_path: Path):
    """A real terminal, as ssh and tmux give one: it starts, and leaves it as it was found."""
    main, side = pty.openpty()
    env = {**os.environ, "TERM": "screen", "QWEN35_DATA": str(tmp_path), "COLUMNS": "80", "LINES": "24"}
    child = subprocess.Popen(
        [sys.executable, "-m", "qwen35_local.cli", "chat", "--model", "/nowhere"],
        stdin=side, stdout=side, stderr=side, cwd=ROOT, env=env, start_new_session=True,
    )  # fmt: skip
    os.close(side)
    seen = b""
    end = time.monotonic() + 60
    while b"no model" not in seen and time.monotonic() < end:
        seen += os.read(main, 65536)
    os.write(main, b"\x11")
    try:
        while chunk := os.read(main, 65536):
            seen += chunk
    except OSError:
        pass
    assert child.wait(30) == 0
    os.close(main)
    assert seen.count(b"\x1b[?1049h") == seen.count(b"\x1b[?1049l") == 1


@run
async def test_103_paste_of_a_megabyte_and_of_escape_codes(drive):
    async with drive(["ok"], context=1 << 22, chunk=1 << 20) as d:
        composer = d.app.chat.composer
        big = "word " * 200_000
        composer.post_message(events.Paste(big))
        await d.until(lambda: composer.text.startswith("[Paste #1"))
        assert composer.expanded == big
        await d.press("backspace")
        assert composer.text == ""
        composer.post_message(events.Paste("a\x1b[31mb\x07"))
        await d.until(lambda: composer.text == "a␛[31mb␇")


@run
async def test_104_no_escape_code_reaches_the_screen(drive):
    evil = "a\x1b]0;owned\x07b \x1b[2J `\x9b31m` \x1b]8;;http://evil\x1b\\x"
    async with drive([f"{evil}\n\n```\n{evil}\n```\n\n| {evil} |\n|---|\n| {evil} |"]) as d:
        await d.say("Hi")
        await d.until(lambda: "owned" in d.text)
        assert not set(d.text) & {chr(code) for code in [*range(9), *range(11, 32), 127, 0x9B]}
        drawn = [seg.text for line in d.app.screen._compositor.render_strips() for seg in line]
        assert not any("\x1b" in text or "\x07" in text or "\x9b" in text for text in drawn)


@run
async def test_104_nor_from_thoughts_tools_titles_pictures_errors_and_drafts(drive, tmp_path: Path):
    evil = "x\x1b]0;owned\x07\x1b[31m\x9b2J\u202e"
    picture = tmp_path / f"{evil}.png"
    picture.write_bytes(png((64, 64)))
    call = f"<tool_call>\n<function=get_time>\n<parameter=city>\n{evil}\n</parameter>\n</function>\n</tool_call>"
    replies = [f"{evil}\n</think>\n\n{call}", f"ok\n</think>\n\n{evil}", ["why\n</think>", RuntimeError(evil)]]
    overrides = {"thinking": True, "tools": True, "theme": "ansi-dark"}
    async with drive(replies, overrides=overrides, vision=True, size=(100, 40), data=tmp_path / "data") as d:
        hostile = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]")

        async def clean() -> None:
            await d.pilot.pause()
            assert not hostile.search(d.screen.replace("\n", ""))

        d.app.chat.verbs.attach_paths([picture])
        await d.say(d.app.chat.composer.text + f"q {evil}")
        await d.until(lambda: not d.app.talk.busy and len(d.app.talk.tree) == 4)
        await clean()
        await d.press("ctrl+t")
        assert "owned" in d.text
        await clean()
        await d.say("And now?")
        assert "RuntimeError" in d.text
        await clean()
        d.app.history.rename(d.app.talk.chat, evil)
        d.app.chat.redraw()
        await clean()
        await d.press("f2")
        await d.press(*"owned")
        assert "owned" in d.screen
        await clean()
        await d.press("escape")
        await d.press("shift+tab", "up", "i")
        await clean()
        await d.press("escape")
        await d.say("/browse")
        await d.press("down")
        await clean()
        await d.press("escape")
        await d.press("ctrl+y")
        assert not hostile.search(d.app.clipboard)


@run
async def test_105_long_answer_wide_table_open_fence(drive):
    table = "|" + "h|" * 200 + "\n|" + "-|" * 200 + "\n|" + "c|" * 200
    text = "A paragraph of words.\n\n" * 4500 + table + "\n\n```py\nnever closed"
    async with drive([]) as d:
        from tui.chat.turns import Turn

        d.app.talk._put(Turn(1, 0, "assistant", text))
        d.app.chat.redraw()
        await d.pilot.pause()
        transcript = d.app.chat.transcript
        assert transcript.virtual_size.height > 4500
        assert sum(row.measured for row in transcript.page.column.rows) < 400
        assert any("never closed" in transcript.render_line(y).text for y in range(transcript.size.height))


@run
async def test_106_a_history_that_cannot_be_written(drive, tmp_path: Path):
    async with drive(["still here", "and here"], data=tmp_path / "data") as d:
        blocker = sqlite3.connect(tmp_path / "data" / "history.sqlite3", isolation_level=None)
        blocker.execute("BEGIN IMMEDIATE")
        await d.say("Hi")
        assert "still here" in d.text
        assert "could not be saved" in d.notice
        blocker.execute("ROLLBACK")
        blocker.close()
        await d.until(lambda: len(d.app.history.chats()) == 1)
        assert [t.text for t in d.app.history.load(d.app.talk.chat).path()] == ["Hi", "still here"]


@run
async def test_106_a_full_disk(drive, tmp_path: Path):
    """Nothing said is lost while there is no room, and it is written once there is."""
    picture = tmp_path / "noise.png"
    Image.effect_noise((160, 160), 90).save(picture)
    async with drive(["the answer", "more"], data=tmp_path / "data", vision=True) as d:
        connection = d.app.history._db
        pages = connection.execute("PRAGMA page_count").fetchone()[0]
        connection.execute(f"PRAGMA max_page_count = {pages}")  # SQLite then says what it says on a full disk
        d.app.chat.verbs.attach_paths([picture])
        await d.say(d.app.chat.composer.text + "Hi")
        assert "the answer" in d.text
        assert "full" in d.notice
        connection.execute("PRAGMA max_page_count = 1000000")
        await d.until(lambda: len(d.app.history.chats()) == 1)
        await d.say("Again")
        stored = d.app.history.load(d.app.talk.chat).path()
        assert [turn.text[:10] for turn in stored] == ["Hi", "the answer", "Again", "more"]


@run
async def test_107_two_apps_on_one_history(drive, tmp_path: Path):
    """Both answer at once into one file; each finds and opens what the other wrote."""
    one_says, other_says = "about whales " * 30, "about bees " * 30
    async with (
        drive([one_says], data=tmp_path / "data", delay=0.001) as one,
        drive([other_says], data=tmp_path / "data", delay=0.001) as other,
    ):
        await one.say("First", wait=False)
        await other.say("Second", wait=False)
        await one.until(lambda: len(one.app.talk.tree) == 2 and not one.app.talk.busy, 60)
        await other.until(lambda: len(other.app.talk.tree) == 2 and not other.app.talk.busy, 60)
        for app, word, title in ((one, "bees", "Second"), (other, "whales", "First")):
            await app.until(lambda app=app: len(app.app.history.chats()) == 2)
            await app.press("f2", *word)
            assert title in app.screen
            await app.press("enter")
            await app.until(lambda app=app, word=word: f"about {word}" in app.text)
        await one.say("/rename Both see it")
        assert other.app.history.title(one.app.talk.chat) == "Both see it"
        await other.say("/delete")
        assert [entry.title for entry in one.app.history.chats()] == ["Both see it"]


@run
async def test_108_partial_answers_are_on_disk_and_shown_as_interrupted(drive, tmp_path: Path):
    async with drive(["word " * 400], data=tmp_path / "data", delay=0.01) as d:
        await d.say("Hi", wait=False)
        chat = d.app.talk.chat
        await d.until(lambda: "word" in d.app.history.load(chat).path()[-1].text)
        kept = d.app.history.load(chat)
        assert kept.path()[-1].status == "writing"
        await d.press("escape")
        await d.until(lambda: not d.app.talk.busy)
        d.app.chat.transcript.show(kept)
        assert "interrupted" in d.text


@run
async def test_109_the_engine_dies_and_the_app_stays(drive):
    async with drive([["half ", RuntimeError("the device is gone")], "back"]) as d:
        await d.say("Hi")
        assert "half" in d.text
        assert "✗ RuntimeError: the device is gone" in d.text
        await d.say("Again")
        assert "back" in d.text


@run
async def test_110_suspend_is_offered(drive):
    async with drive() as d:
        assert d.app.active_bindings["ctrl+z"].binding.action == "app.suspend_process"


def test_options_of_the_command_line_become_choices():
    given = {"thinking": False, "preserve_thinking": True, "max_tokens": 5, "stop": ("x",), "temperature": 0.0}
    chosen = Preferences(**overrides(given, "Be brief."))
    assert chosen.preserve_thinking
    assert (chosen.thinking, chosen.max_tokens, chosen.stop, chosen.system) == (False, 5, ("x",), "Be brief.")
    assert chosen.chosen_sampling is not None
    assert chosen.chosen_sampling.temperature == 0


def test_damaged_settings_are_said_and_ignored(tmp_path: Path):
    path = tmp_path / "settings.json"
    path.write_text('{"theme": "pink"}')
    loaded, notice = Preferences.load(path)
    assert loaded == Preferences()
    assert "pink" in notice
