"""Verbs of whole chats: start, find, name, delete, write to a file."""

import sqlite3
from pathlib import Path

from ..export import FORMATS, to_json, to_markdown
from ..screens.dialog import TextDialog
from ..screens.history import HistoryScreen, Picked
from ..slash import parse
from .group import Group


class ChatVerbs(Group):
    _deleted: tuple[int, ...] = ()  # the chats that this window deleted, the last one last
    _drafted: tuple[int, str] = (0, "")  # a chat, and the draft of it that is on disk

    def slash_new(self, argument: str) -> None:
        self.keep_draft()
        self._talk.new()
        self._screen.opened()

    def slash_history(self, argument: str) -> None:
        self._talk.flush()
        self.keep_draft()
        self._app.push_screen(
            HistoryScreen(self._app.history, self._app.palette, argument, self._talk.chat), self._open
        )

    def _open(self, picked: Picked | None) -> None:
        if picked is None:
            return
        self.keep_draft()
        try:
            self._talk.open(picked.chat)
        except (sqlite3.Error, ValueError) as error:
            self._screen.say(f"that chat cannot be read ({error})")
            return
        self._screen.opened(picked.turn)

    def keep_draft(self) -> None:
        """Write what is typed and not sent, if that changed."""
        typed = self._screen.composer.draft
        draft = (self._talk.chat, "" if parse(typed) else typed)
        if draft == self._drafted or (not draft[1] and draft[0] != self._drafted[0]):
            return
        try:
            self._app.history.set_draft(*draft)
            self._drafted = draft
        except sqlite3.Error as error:
            self._screen.say(f"what you typed could not be saved ({error})")

    def draft(self) -> None:
        """Put what was typed here into the composer; a long draft folded, as a paste."""
        draft = self._app.history.draft(self._talk.chat)
        self._drafted = (self._talk.chat, draft)
        if draft:
            self._screen.composer.take(draft)

    def slash_rename(self, argument: str) -> None:
        if argument:
            self._rename(argument)
        else:
            title = self._app.history.title(self._talk.chat)
            self._app.push_screen(TextDialog("Title", title), self._rename)

    def _rename(self, title: str | None) -> None:
        if title and self._written(lambda: self._app.history.rename(self._talk.chat, title)):
            self._screen.redraw()

    def slash_delete(self, argument: str) -> None:
        chat = self._talk.chat
        self._talk.abandon()
        if self._written(lambda: self._app.history.delete(chat)):
            self._deleted += (chat,)
            self._talk.new()
            self._screen.opened()
            self._screen.say("deleted this chat: /undelete brings it back")

    def slash_undelete(self, argument: str) -> None:
        if not self._deleted:
            self._screen.say("nothing was deleted in this window")
        elif self._written(lambda: self._app.history.undelete(self._deleted[-1])):
            *rest, chat = self._deleted
            self._deleted = tuple(rest)
            self._open(Picked(chat))

    def slash_export(self, argument: str) -> None:
        """`md` or `json`, and where to; never over an existing file."""
        kind, _, where = argument.partition(" ")
        kind = kind or "md"
        if kind not in FORMATS:
            self._screen.say(f"a chat can be exported as {' or '.join(FORMATS)}, not {kind!r}")
            return
        title = self._app.history.title(self._talk.chat)
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


def file_name(title: str) -> str:
    """A title as a file name that every system takes."""
    return "-".join("".join(c if c.isalnum() else " " for c in title).split())[:60] or "chat"
