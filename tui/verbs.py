"""What the user can do: every slash command and every key on a message ends here."""

import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from textual.binding import Binding

from .chat.talk import Talk
from .export import FORMATS, to_json, to_markdown
from .safe import printable
from .screens.dialog import TextDialog
from .screens.help import HelpScreen
from .screens.history import HistoryScreen, Picked
from .screens.numbers import NumbersScreen
from .screens.settings import SettingsScreen
from .settings import PRESETS, THEMES, Preferences
from .slash import BY_NAME
from .widgets.transcript import Transcript

if TYPE_CHECKING:
    from .screens.chat import ChatScreen


class Verbs:
    """The verbs of one chat screen."""

    def __init__(self, screen: "ChatScreen"):
        self._screen = screen
        self._deleted: list[int] = []

    @property
    def _talk(self) -> Talk:
        return self._screen.talk

    def run(self, name: str, argument: str) -> None:
        """A slash command."""
        if name not in BY_NAME:
            self._screen.say(f"there is no command /{name}: /help lists them")
            return
        self._screen.say("")
        getattr(self, f"slash_{name}")(argument)

    def act(self, verb: str, turn: int, detail: str) -> None:
        """A key or click on a turn."""
        getattr(self, f"on_{verb}")(turn, detail)

    def send(self, text: str) -> None:
        """Ask, or ask anew if a question is being edited."""
        screen = self._screen
        if self._talk.busy:
            screen.say("the model is still answering: Esc stops it")
            return
        screen.say("")
        screen.composer.remember(text)
        screen.composer.put("")
        if screen.editing:
            self._talk.edit(screen.editing, text)
            screen.editing = 0
        else:
            self._talk.ask(text)
        screen.transcript.action_to_end()
        screen.redraw()

    # --- a turn

    def on_version(self, turn: int, detail: str) -> None:
        if self._talk.switch(turn, int(detail)):
            self._screen.redraw()

    def on_regenerate(self, turn: int, detail: str = "") -> None:
        if not self._talk.busy:
            self._talk.regenerate(turn)
            self._screen.redraw()

    def on_edit(self, turn: int, detail: str = "") -> None:
        path = [t for t in self._talk.tree.path(turn) if t.role == "user"]
        if not path or self._talk.busy:
            return
        self._screen.editing = path[-1].id
        self._screen.composer.put(path[-1].text)
        self._screen.composer.focus()
        self._screen.say("editing: Enter asks it as a branch beside the old one, Esc leaves it as it was")

    def on_copy(self, turn: int, detail: str = "") -> None:
        self._copy(self._talk.tree[turn].text, "the message")

    def on_copy_block(self, turn: int, detail: str) -> None:
        self._copy(detail, "the code")

    def _copy(self, text: str, what: str) -> None:
        self._screen.app.copy_to_clipboard(printable(text))
        self._screen.say(f"copied {what} ({len(text):,} characters)")

    # --- commands

    def slash_new(self, argument: str) -> None:
        self._keep_draft()
        self._talk.new()
        self._screen.opened()

    def slash_regenerate(self, argument: str) -> None:
        if self._talk.tree.leaf:
            self.on_regenerate(self._talk.tree.leaf)

    def slash_edit(self, argument: str) -> None:
        if self._talk.tree.leaf:
            self.on_edit(self._talk.tree.leaf)

    def slash_continue(self, argument: str) -> None:
        if self._talk.tree.leaf:
            self.send("Continue.")

    def slash_copy(self, argument: str) -> None:
        answers = [turn for turn in self._talk.tree.path() if turn.role == "assistant"]
        if answers:
            self.on_copy(answers[-1].id)

    def slash_raw(self, argument: str) -> None:
        self._screen.transcript.action_raw()

    def slash_history(self, argument: str) -> None:
        app = self._screen.app
        self._talk.flush()
        app.push_screen(HistoryScreen(app.history, app.palette, argument, self._talk.chat), self._open)  # type: ignore[attr-defined]

    def _open(self, picked: Picked | None) -> None:
        if picked is None:
            return
        self._keep_draft()
        try:
            self._talk.open(picked.chat)
        except (sqlite3.Error, ValueError) as error:
            self._screen.say(f"that chat cannot be read ({error})")
            return
        self._screen.opened(picked.turn)

    def _keep_draft(self) -> None:
        text = self._screen.composer.text
        try:
            if text or self._screen.app.history.draft(self._talk.chat):  # type: ignore[attr-defined]
                self._screen.app.history.set_draft(self._talk.chat, text)  # type: ignore[attr-defined]
        except sqlite3.Error as error:
            self._screen.say(f"what you typed could not be saved ({error})")

    def slash_rename(self, argument: str) -> None:
        if argument:
            self._rename(argument)
        else:
            title = self._screen.app.history.title(self._talk.chat)  # type: ignore[attr-defined]
            self._screen.app.push_screen(TextDialog("Title", title), self._rename)

    def _rename(self, title: str | None) -> None:
        if title and self._written(lambda: self._screen.app.history.rename(self._talk.chat, title)):  # type: ignore[attr-defined]
            self._screen.redraw()

    def slash_delete(self, argument: str) -> None:
        chat = self._talk.chat
        self._talk.abandon()
        if self._written(lambda: self._screen.app.history.delete(chat)):  # type: ignore[attr-defined]
            self._deleted.append(chat)
            self._talk.new()
            self._screen.opened()
            self._screen.say("deleted this chat: /undelete brings it back")

    def slash_undelete(self, argument: str) -> None:
        if not self._deleted:
            self._screen.say("nothing was deleted in this window")
        elif self._written(lambda: self._screen.app.history.undelete(self._deleted[-1])):  # type: ignore[attr-defined]
            self._open(Picked(self._deleted.pop()))

    def _written(self, write: Callable[[], None]) -> bool:
        try:
            write()
        except sqlite3.Error as error:
            self._screen.say(f"the history could not be changed ({error})")
            return False
        return True

    def slash_think(self, argument: str) -> None:
        self._switch("thinking", argument)

    def slash_tools(self, argument: str) -> None:
        self._switch("tools", argument)

    def _switch(self, name: str, argument: str) -> None:
        """on, off, or the other of the two."""
        if argument not in ("", "on", "off"):
            self._screen.say(f"{name} is on or off, not {argument!r}")
            return
        value = argument == "on" if argument else not getattr(self._preferences, name)
        self._prefer(**{name: value})
        self._screen.say(f"{name} is {'on' if value else 'off'}")

    def slash_preset(self, argument: str) -> None:
        self._choose("preset", argument, tuple(PRESETS))

    def slash_theme(self, argument: str) -> None:
        self._choose("theme", argument, THEMES)

    def _choose(self, name: str, argument: str, values: tuple[str, ...]) -> None:
        if argument not in values:
            said = (
                f"there is no {name} {argument!r}: " if argument else f"{name} is {getattr(self._preferences, name)}: "
            )
            self._screen.say(f"{said}one of {', '.join(values)}")
            return
        self._prefer(**{name: argument})
        self._screen.say(f"{name} is {argument}")

    def slash_system(self, argument: str) -> None:
        if argument:
            self._system(argument)
        else:
            dialog = TextDialog("System prompt", self._preferences.system, lines=8)
            self._screen.app.push_screen(dialog, self._system)

    def _system(self, text: str | None) -> None:
        if text is not None:
            self._prefer(system=text)
            self._screen.say("the system prompt is set" if text else "there is no system prompt now")

    @property
    def _preferences(self) -> Preferences:
        return self._screen.app.preferences  # type: ignore[attr-defined]

    def _prefer(self, **changes: Any) -> None:
        self._screen.app.prefer(**changes)  # type: ignore[attr-defined]

    def slash_settings(self, argument: str) -> None:
        self._screen.app.push_screen(SettingsScreen())

    def slash_stats(self, argument: str) -> None:
        answers = [turn.stats for turn in self._talk.tree.path() if turn.stats]
        palette = self._screen.app.palette  # type: ignore[attr-defined]
        self._screen.app.push_screen(NumbersScreen(palette, self._screen.host.info, answers[-1] if answers else {}))

    def slash_help(self, argument: str) -> None:
        groups = (
            ("Everywhere", [b for b in [*self._screen.BINDINGS, *self._screen.app.BINDINGS] if isinstance(b, Binding)]),
            ("In the conversation (Tab)", [b for b in Transcript.BINDINGS if isinstance(b, Binding)]),
        )
        self._screen.app.push_screen(HelpScreen(self._screen.app.palette, groups))  # type: ignore[attr-defined]

    def slash_export(self, argument: str) -> None:
        """`md` or `json`, and where to; never over an existing file."""
        kind, _, where = argument.partition(" ")
        kind = kind or "md"
        if kind not in FORMATS:
            self._screen.say(f"a chat can be exported as {' or '.join(FORMATS)}, not {kind!r}")
            return
        title = self._screen.app.history.title(self._talk.chat)  # type: ignore[attr-defined]
        write = to_markdown if kind == "md" else to_json
        text = write(title, self._talk.tree.path(), self._preferences.system)
        path = Path(where.strip() or f"{file_name(title)}.{kind}").expanduser()
        try:
            with path.open("x", encoding="utf-8", errors="replace") as file:
                file.write(text)
        except FileExistsError:
            self._screen.say(f"{path} exists already: name another file after /export {kind}")
        except OSError as error:
            self._screen.say(f"{path} cannot be written ({error.strerror})")
        else:
            self._screen.say(f"wrote {path.resolve()}")

    def slash_quit(self, argument: str) -> None:
        self._screen.app.exit()


def file_name(title: str) -> str:
    """A title as a file name that every system takes."""
    return "-".join("".join(c if c.isalnum() else " " for c in title).split())[:60] or "chat"
