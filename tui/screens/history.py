"""Earlier chats: find by any word in them, open, rename, delete and bring back."""

import sqlite3
from dataclasses import dataclass
from datetime import datetime

from rich.text import Text
from textual import on
from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Vertical
from textual.widgets import Input, OptionList, Static
from textual.widgets.option_list import Option

from ..palette import Palette
from ..safe import printable
from ..store.history import ChatEntry, History
from .dialog import Dialog, TextDialog


@dataclass(frozen=True, slots=True)
class Picked:
    """A chat to open, and the turn that matched (0: none)."""

    chat: int
    turn: int = 0


class HistoryScreen(Dialog[Picked]):
    BINDINGS = [  # noqa: RUF012
        Binding("up", "move(-1)", "Above", show=False, priority=True),
        Binding("down", "move(1)", "Below", show=False, priority=True),
        Binding("ctrl+d", "delete", "Delete", priority=True),
        Binding("ctrl+z", "undo", "Undo", priority=True),
        Binding("ctrl+r,f2", "rename", "Rename", priority=True),
    ]
    HINT = "Enter opens · Ctrl+R renames · Ctrl+D deletes · Ctrl+Z undoes · Esc closes"

    def __init__(self, history: History, palette: Palette, words: str = "", current: int = 0):
        super().__init__()
        self._history, self._palette, self._words, self._current = history, palette, words, current
        self._entries: list[ChatEntry] = []
        self._deleted: list[int] = []

    def compose(self) -> ComposeResult:
        with Vertical(id="frame") as frame:
            frame.border_title = "Chats"
            yield Input(self._words, placeholder="Find in all chats", id="words", select_on_focus=False)
            yield OptionList(id="found", markup=False)
            yield Static(self.HINT, id="hint", markup=False)

    def on_mount(self) -> None:
        self.query_one("#words").focus()
        self._fill()

    @on(Input.Changed)
    def _fill(self) -> None:
        words = self.query_one(Input).value
        try:
            self._entries = self._history.search(words) if words.strip() else self._history.chats()
        except sqlite3.Error as error:
            self._say(f"the history cannot be read ({error})")
            return
        listing = self.query_one(OptionList)
        at = listing.highlighted or 0
        listing.clear_options()
        listing.add_options([Option(self._line(entry)) for entry in self._entries])
        if self._entries:
            listing.highlighted = min(at, len(self._entries) - 1)
        self._say(self.HINT if self._entries else "nothing found" if words else "no chats yet")

    def _line(self, entry: ChatEntry) -> Text:
        when = datetime.fromtimestamp(entry.updated).strftime("%d %b %H:%M")
        mark = "●" if entry.id == self._current else " "
        line = Text(f"{mark} {printable(entry.title) or 'Untitled'}  ")
        line.append(when, self._palette.dim)
        if entry.turns:
            line.append(f"  {entry.turns} messages", self._palette.dim)
        if entry.draft:
            line.append("  not sent yet" if not entry.turns else "  draft", self._palette.warning)
        if entry.snippet and entry.snippet != entry.title:
            line.append(f"\n    {entry.snippet}", self._palette.dim)
        return line

    def _say(self, text: str) -> None:
        self.query_one("#hint", Static).update(text)

    @property
    def _marked(self) -> ChatEntry | None:
        at = self.query_one(OptionList).highlighted
        return self._entries[at] if at is not None and at < len(self._entries) else None

    def action_move(self, by: int) -> None:
        listing = self.query_one(OptionList)
        if by < 0:
            listing.action_cursor_up()
        else:
            listing.action_cursor_down()

    @on(Input.Submitted)
    @on(OptionList.OptionSelected)
    def _open(self) -> None:
        if self._marked is not None:
            self.dismiss(Picked(self._marked.id, self._marked.turn))

    def action_delete(self) -> None:
        entry = self._marked
        if entry is not None and self._written(lambda: self._history.delete(entry.id)):
            self._deleted.append(entry.id)
            self._fill()
            self._say(f"deleted “{printable(entry.title)}”: Ctrl+Z brings it back")

    def action_undo(self) -> None:
        if self._deleted and self._written(lambda: self._history.undelete(self._deleted[-1])):
            self._deleted.pop()
            self._fill()

    def action_rename(self) -> None:
        entry = self._marked
        if entry is None:
            return

        def renamed(title: str | None) -> None:
            if title and self._written(lambda: self._history.rename(entry.id, title)):
                self._fill()

        self.app.push_screen(TextDialog("Title", entry.title), renamed)

    def _written(self, write) -> bool:
        try:
            write()
        except sqlite3.Error as error:
            self._say(f"the history could not be changed ({error})")
            return False
        return True
