"""A tour of each part of the app: every key and every slash command is used, and its effect is looked at.

A tour fails if a key or a command was left out, so that a new one needs its step here.
"""

import re
from pathlib import Path
from types import SimpleNamespace

import pytest
from driven import CALL, Driven, run
from PIL import Image
from textual.binding import Binding
from textual.command import CommandPalette
from textual.dom import DOMNode
from textual.geometry import Offset
from textual.selection import Selection
from textual.widgets import OptionList

from tui.app import ChatApp
from tui.models import ModelChoice
from tui.screens.browse import BrowseScreen
from tui.screens.chat import ChatScreen
from tui.screens.dialog import Dialog, TextDialog
from tui.screens.help import HelpScreen
from tui.screens.history import HistoryScreen
from tui.screens.models import ModelScreen
from tui.screens.numbers import NumbersScreen
from tui.screens.preview import PreviewScreen
from tui.screens.settings import SettingsScreen
from tui.slash import COMMANDS
from tui.vision import load
from tui.widgets.composer import Composer
from tui.widgets.pictures import Pictures
from tui.widgets.transcript import Transcript

TOURED: tuple[type[DOMNode], ...] = (
    *(ChatApp, ChatScreen, Transcript, Composer, Pictures),
    *(HistoryScreen, PreviewScreen, BrowseScreen, SettingsScreen, Dialog, TextDialog),
)
WIDE = "| " + " | ".join(f"column {n}" for n in range(30)) + " |\n" + "|---" * 30 + "|\n" + "| cell " * 30 + "|"


class Tour:
    """Presses keys by the action that they are bound to."""

    def __init__(self, driven: Driven, *parts: type[DOMNode]):
        self._driven = driven
        bindings = [b for part in parts for b in part.__dict__["BINDINGS"] if isinstance(b, Binding)]
        self._keys = {binding.action: binding.key.split(",") for binding in bindings}
        self._left = set(self._keys)

    async def press(self, action: str) -> None:
        """Every key of it, one after the other."""
        await self._driven.press(*self._keys[action])
        self._left.discard(action)

    def seen(self, action: str) -> None:
        """Used in another way, or in another test."""
        self._left.discard(action)

    def end(self) -> None:
        assert not self._left, f"no step for {sorted(self._left)}"


def test_every_part_with_keys_has_a_tour():
    def below(part: type) -> set[type]:
        return {part}.union(*(below(sub) for sub in part.__subclasses__()))

    ours = {part for part in below(DOMNode) if part.__module__.startswith("tui.") and "BINDINGS" in part.__dict__}
    assert ours == set(TOURED)


@run
async def test_app_and_chat_screen(drive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    long = "\n\n".join(f"paragraph {n}" for n in range(60))
    async with drive([long, "second", "third", "word " * 400], data=tmp_path / "data", delay=0.001) as d:
        tour = Tour(d, ChatApp, ChatScreen)
        await d.say("Question")
        transcript = d.app.chat.transcript
        end = transcript.scroll_offset.y
        assert end > 20
        await tour.press("page(-1)")
        assert transcript.scroll_offset.y < end
        await tour.press("page(1)")
        assert transcript.scroll_offset.y == end
        await tour.press("slash('regenerate')")
        await d.until(lambda: "second" in d.text and not d.app.talk.busy)
        await tour.press("slash('copy')")
        assert d.app.clipboard == "second"
        await tour.press("slash('edit')")
        assert d.app.chat.composer.text == "Question"
        await tour.press("stop")
        assert d.app.chat.composer.text == ""
        await tour.press("fold_all")
        assert transcript.page._open
        for action, screen in (("help", HelpScreen), ("settings", SettingsScreen), ("stats", NumbersScreen)):
            await tour.press(f"slash('{action}')")
            assert isinstance(d.app.screen, screen)
            await d.press("escape")
        d.app.find_models = lambda: [ModelChoice("other", "", d.app.host.start)]  # type: ignore[arg-type, return-value]
        await tour.press("slash('model')")
        assert isinstance(d.app.screen, ModelScreen)
        await d.press("escape")
        await d.press("f2")
        assert isinstance(d.app.screen, HistoryScreen)
        await d.press("escape")
        tour.seen("slash('history')")
        await tour.press("leave(-1)")
        assert transcript.has_focus
        await tour.press("leave(1)")
        assert d.app.chat.composer.has_focus
        await tour.press("slash('new')")
        assert len(d.app.talk.tree) == 0
        await d.say("Again")
        transcript.screen.selections = {transcript: Selection(Offset(2, 1), Offset(5, 1))}
        await tour.press("copy_or_stop")  # what is selected
        assert d.app.clipboard == "You"
        await d.say("More", wait=False)
        await d.until(lambda: "word" in d.text)
        await tour.press("copy_or_stop")  # else it stops
        await d.until(lambda: not d.app.talk.busy)
        assert d.app.talk.tree.path()[-1].status == "stopped"
        asked: list[str] = []
        monkeypatch.setattr(d.app, "action_suspend_process", lambda: asked.append("suspend"))
        await tour.press("suspend_process")
        assert asked == ["suspend"]
        await tour.press("quit")
        await d.until(lambda: not d.app.is_running)
        tour.end()


@run
async def test_transcript(drive, picture: Path):
    replies = ["first", f"**two**\n\n```py\nx = 1\n```\n\n{WIDE}", "third", "fourth"]
    async with drive(replies, vision=True, size=(80, 30)) as d:
        tour = Tour(d, Transcript)
        await d.say(f"/image {picture}")
        await d.say(d.app.chat.composer.text + "one?")
        await d.say("two?")
        transcript, page = d.app.chat.transcript, d.app.chat.transcript.page
        turns = [turn.id for turn in d.app.talk.tree.path()]
        await d.press("shift+tab")
        assert transcript.has_focus
        await tour.press("choose(-1)")
        assert page.chosen == turns[2]
        await tour.press("choose(1)")
        assert page.chosen == turns[3]
        await tour.press("act('copy')")
        assert d.app.clipboard.startswith("**two**")
        await tour.press("act('copy_code')")
        assert d.app.clipboard == "x = 1"
        await tour.press("sideways(1)")
        assert any(row.shift for row in page.column.rows)
        assert "column 29" not in d.screen
        await d.press(*["shift+right"] * 40)
        assert "column 29" in d.screen
        await d.press(*["shift+left"] * 40)
        await tour.press("sideways(-1)")
        assert not any(row.shift for row in page.column.rows)
        await tour.press("raw")
        assert "```py" in d.text
        await tour.press("fold")
        assert page._open == {turns[3]: False}  # by Enter and by Space: there and back
        await tour.press("scroll_home")
        assert transcript.scroll_offset.y == 0
        await tour.press("to_end")
        assert transcript.scroll_offset.y == transcript.max_scroll_y
        await tour.press("act('pictures')")
        assert isinstance(d.app.screen, PreviewScreen)
        await d.press("escape")
        await tour.press("act('regenerate')")
        await d.until(lambda: "third" in d.text and not d.app.talk.busy)
        await d.press("left")
        assert "two" in d.text
        await d.press("right")
        assert "third" in d.text
        for action in ("act('version', '-1')", "act('version', '1')"):
            await tour.press(action)
        await tour.press("act('edit')")
        assert d.app.chat.editing == turns[2]
        assert d.app.chat.composer.has_focus
        tour.end()


@run
async def test_what_the_mouse_does(drive):
    code = "```py\n" + "\n".join(f"x{n} = {n}" for n in range(3)) + "\n```"
    async with drive(["one", code, "thought\n</think>\n\n" + WIDE], overrides={"thinking": False}) as d:
        await d.say("Hi")
        await d.press("ctrl+r")
        await d.until(lambda: "x2 = 2" in d.text and not d.app.talk.busy)
        page, transcript = d.app.chat.transcript.page, d.app.chat.transcript

        async def click(word: str) -> None:
            lines = [transcript.render_line(y).text for y in range(transcript.size.height)]
            y = next(y for y, line in enumerate(lines) if word in line)
            await d.pilot.click(Transcript, offset=(lines[y].index(word) + 1, y))
            await d.pilot.pause()

        await click("copy")
        assert d.app.clipboard == "x0 = 0\nx1 = 1\nx2 = 2"
        await click("‹ 2/2")
        await d.until(lambda: "one" in d.text)
        assert page.chosen
        d.app.prefer(thinking=True)
        await d.say("More")
        await click("▸ Thought")
        assert "│ thought" in d.text
        wide = next(at for at, row in enumerate(page.column.rows) if row.piece.wide)
        top = page.column.top(wide) - transcript.scroll_offset.y + 1
        event = SimpleNamespace(style=SimpleNamespace(meta={"row": wide}), stop=lambda: None)
        transcript.on_mouse_scroll_right(event)  # type: ignore[arg-type]
        assert page.column.rows[wide].shift
        assert "column 0 " not in transcript.render_line(top).text
        transcript.on_mouse_scroll_left(event)  # type: ignore[arg-type]
        assert not page.column.rows[wide].shift


@run
async def test_composer(drive, monkeypatch: pytest.MonkeyPatch):
    async with drive() as d:
        tour = Tour(d, Composer)
        composer = d.app.chat.composer
        await d.press("a")
        await tour.press("newline")
        assert composer.text == "a\n\n\n"
        await d.press("b")
        await tour.press("undo")
        assert composer.text != "a\n\n\nb"
        await tour.press("clear")
        assert composer.text == ""
        composer.put("see [Image #1] here")
        composer.move_cursor((0, 4))
        await d.press("delete")
        assert composer.text == "see  here"
        asked: list[str] = []
        monkeypatch.setattr(d.app, "action_suspend_process", lambda: asked.append("suspend"))
        await tour.press("app.suspend_process")
        assert asked == ["suspend"]
        tour.end()


@run
async def test_pane_of_pictures(drive, tmp_path: Path):
    for name in ("red", "green", "blue", "white"):
        Image.new("RGB", (64, 48), name).save(tmp_path / f"{name}.png")
    async with drive(["ok"], vision=True, size=(100, 40)) as d:
        tour = Tour(d, Pictures)
        pane, composer = d.app.chat.pictures, d.app.chat.composer
        for name in ("red", "green", "blue", "white"):
            await d.press("@", *name, "tab")
        await d.until(lambda: len(pane.media) == 4)

        def names() -> list[str]:
            return [media.name.removesuffix(".png") for media in pane.media]

        assert composer.text == "[Image #1] [Image #2] [Image #3] [Image #4] "
        await d.press("tab")
        assert pane.has_focus
        await tour.press("move(-1)")
        assert names() == ["red", "green", "white", "blue"]
        await tour.press("move(1)")
        assert names() == ["red", "green", "blue", "white"]
        await tour.press("choose(-1)")
        await tour.press("preview")
        assert isinstance(d.app.screen, PreviewScreen)
        assert "3/4  blue.png" in d.screen
        await d.press("escape")
        await tour.press("choose(1)")
        await d.press("up")
        await tour.press("remove")  # by each of its three keys
        assert len(names()) == 1
        assert composer.text.count("[Image") == 1
        await d.press("x")
        assert not pane.display
        assert composer.has_focus
        tour.end()


@run
async def test_chats(drive, tmp_path: Path):
    async with drive(["about whales", "about bees"], data=tmp_path / "data") as d:
        await d.say("First")
        await d.press("ctrl+n")
        await d.say("Second")
        await d.press("ctrl+o")
        tour, screen = Tour(d, HistoryScreen), d.app.screen
        assert isinstance(screen, HistoryScreen)
        listing = screen.query_one(OptionList)
        await tour.press("move(1)")
        assert listing.highlighted == 1
        await tour.press("move(-1)")
        assert listing.highlighted == 0
        await tour.press("delete")
        assert [entry.title for entry in screen._entries] == ["First"]
        await tour.press("undo")
        assert [entry.title for entry in screen._entries] == ["Second", "First"]
        await d.press("ctrl+r")
        assert isinstance(d.app.screen, TextDialog)
        await d.press(*"!", "enter")
        await d.until(lambda: screen._entries[0].title == "Second!")
        tour.seen("rename")
        await d.press(*"whal", "enter")
        await d.until(lambda: "about whales" in d.text)
        tour.end()


@run
async def test_preview_and_browser(drive, tmp_path: Path):
    (tmp_path / "inner").mkdir()
    for name in ("a", "b"):
        Image.new("RGB", (64, 48), "red").save(tmp_path / "inner" / f"{name}.png")
    async with drive(["ok"], vision=True) as d:
        browse = Tour(d, BrowseScreen)
        await d.say("/browse")
        await d.press("down", "enter")
        assert d.app.screen._folder == tmp_path / "inner"  # type: ignore[attr-defined]
        await d.press("down")
        await d.until(lambda: "▀" in d.screen)
        await browse.press("up")
        assert d.app.screen._folder == tmp_path.parent  # type: ignore[attr-defined]
        await d.press("escape")
        browse.end()
        for name in ("a", "b"):
            await d.press("@", *f"inner/{name}", "tab")
        await d.until(lambda: len(d.app.chat.pictures.media) == 2)
        preview = Tour(d, PreviewScreen)
        await d.press("tab", "enter")
        assert "2/2  b.png" in d.screen
        await d.press("right")
        assert "1/2  a.png" in d.screen
        await d.press("left")
        assert "2/2  b.png" in d.screen
        for action in ("next(1)", "next(-1)"):
            await preview.press(action)
        for key in ("escape", "q", "enter"):
            assert isinstance(d.app.screen, PreviewScreen)
            await d.press(key)
            assert d.app.screen is d.app.chat
            await d.press("enter")
        preview.seen("close")
        preview.end()


@run
async def test_settings_and_dialogs(drive):
    async with drive() as d:
        settings, dialog, text = Tour(d, SettingsScreen), Tour(d, Dialog), Tour(d, TextDialog)
        chosen = lambda: d.app.preferences  # noqa: E731
        await d.press("f3")
        await settings.press("change(1)")  # by Right and by Space
        assert chosen().thinking is False
        await settings.press("change(-1)")
        assert chosen().thinking is True
        await d.press("down", "enter")
        assert chosen().thinking_budget == 256
        d.app.prefer(thinking_budget=77)
        await d.press("right")
        assert chosen().thinking_budget is None
        await d.press("down", "right")
        assert chosen().tools is True
        await d.press("down", "right")
        assert chosen().preset == "thinking"
        await d.press("down", "right")
        assert chosen().theme == d.app.theme == "qwen-light"
        await d.press("down", "enter")
        assert isinstance(d.app.screen, TextDialog)
        await d.press(*"Be", "enter", *"brief.")
        await text.press("take")
        assert chosen().system == "Be\nbrief."
        await d.press("enter", *"no")
        await dialog.press("dismiss_none")
        assert chosen().system == "Be\nbrief."
        for tour in (settings, dialog, text):
            tour.end()


@run
async def test_every_slash_command(drive, tmp_path: Path, picture: Path, monkeypatch: pytest.MonkeyPatch):
    left = {command.name for command in COMMANDS}
    replies = [CALL, "It is **42**.", "Again 42.", "Go on.", "new"]
    async with drive(replies, vision=True, data=tmp_path / "data", size=(100, 40)) as d:

        async def say(command: str) -> None:
            await d.say(command)
            left.discard(command[1:].split()[0])

        await say("/tools on")
        await d.say("6 times 7?")
        assert "→ 42" in d.text
        await say("/copy")
        assert d.app.clipboard == "It is **42**."
        await say("/raw")
        assert "**42**" in d.text
        await say("/regenerate")
        await d.until(lambda: "Again 42." in d.text and not d.app.talk.busy)
        await say("/continue")
        await d.until(lambda: "Go on." in d.text and not d.app.talk.busy)
        await say("/rename Sums")
        assert d.app.history.title(d.app.talk.chat) == "Sums"
        await d.say("/rename")
        await d.press(*"!", "enter")
        assert d.app.history.title(d.app.talk.chat) == "Sums!"
        await say("/export")
        assert "It is" not in (tmp_path / "Sums.md").read_text()
        assert "Again 42." in (tmp_path / "Sums.md").read_text()
        await say("/edit")
        assert d.app.chat.composer.text == "Continue."
        await d.press("escape")
        for command, screen in (
            ("/help", HelpScreen),
            ("/stats", NumbersScreen),
            ("/settings", SettingsScreen),
            ("/history", HistoryScreen),
            ("/browse", BrowseScreen),
        ):
            await say(command)
            assert isinstance(d.app.screen, screen)
            await d.press("escape")
        await d.say("/history 42")
        assert isinstance(d.app.screen, HistoryScreen)
        assert [entry.title for entry in d.app.screen._entries] == ["Sums!"]
        await d.press("escape")
        await say("/image a sun.png")
        assert len(d.app.chat.pictures.media) == 1
        image = Image.new("RGB", (9, 9))
        monkeypatch.setattr(load.ImageGrab, "grabclipboard", lambda: image)
        await d.pilot.press(*"/clipboard", "enter")
        await d.until(lambda: len(d.app.chat.pictures.media) == 2)
        left.discard("clipboard")
        await d.press("ctrl+u")
        assert d.app.chat.pictures.media == ()
        await say("/think 64")
        await say("/preset precise")
        await say("/system Be brief.")
        await say("/theme qwen-contrast")
        chosen = d.app.preferences
        assert (chosen.thinking_budget, chosen.preset, chosen.system, chosen.theme) == (
            *(64, "precise", "Be brief."),
            "qwen-contrast",
        )
        await say("/keys stats ctrl+g")
        await d.press("ctrl+g")
        assert isinstance(d.app.screen, NumbersScreen)
        await d.press("escape")
        await say("/model")
        assert "no other model" in d.notice
        await say("/delete")
        assert len(d.app.talk.tree) == 0
        await say("/undelete")
        assert "Again 42." in d.text
        await say("/new")
        assert len(d.app.talk.tree) == 0
        await say("/quit")
        await d.until(lambda: not d.app.is_running)
    assert not left, f"no step for {sorted(left)}"


@run
async def test_keys_are_changed_refused_kept_and_given_back(drive, tmp_path: Path):
    async with drive(["a"], data=tmp_path / "data") as d:
        await d.say("Hi")
        for said, answer in (
            ("/keys nonsense ctrl+g", "no key is named"),
            ("/keys stats ctrl-g!", "is no key"),
            ("/keys stats f1", "f1 is the key for help"),
        ):
            await d.say(said)
            assert answer in d.notice
        await d.say("/keys stats Ctrl+G")
        await d.press("f4")
        assert d.app.screen is d.app.chat
        await d.press("ctrl+g")
        assert isinstance(d.app.screen, NumbersScreen)
        await d.press("escape")
        await d.say("/keys")
        assert re.search(r"Ctrl\+G +Numbers +stats", "\n".join(d.text_of(HelpScreen)))
        await d.press("escape")
    async with drive(["a"], data=tmp_path / "data") as d:
        await d.press("ctrl+g")
        assert isinstance(d.app.screen, NumbersScreen)
        await d.press("escape")
        await d.say("/keys stats")
        await d.press("f4")
        assert isinstance(d.app.screen, NumbersScreen)


@run
async def test_command_palette_runs_commands(drive):
    async with drive() as d:
        await d.press("ctrl+p")
        await d.until(lambda: isinstance(d.app.screen, CommandPalette))
        await d.press(*"numbers of")
        await d.until(lambda: "/stats" in d.screen)
        await d.press("enter", "enter")
        await d.until(lambda: isinstance(d.app.screen, NumbersScreen))
