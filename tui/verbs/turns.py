"""Verbs of a message: another version, edit, regenerate, copy."""

from ..render.blocks import blocks_of
from ..safe import printable
from .group import Group


class TurnVerbs(Group):
    def on_version(self, turn: int, detail: str) -> None:
        if self._talk.switch(turn, int(detail)):
            self._screen.redraw()

    def on_regenerate(self, turn: int, detail: str = "") -> None:
        if not self._busy():
            self._talk.regenerate(turn)
            self._screen.redraw()

    def on_edit(self, turn: int, detail: str = "") -> None:
        path = [t for t in self._talk.tree.path(turn) if t.role == "user"]
        if not path or self._busy():
            return
        self._screen.editing = path[-1].id
        self._screen.composer.put("")
        self._screen.pictures.clear()
        for media in path[-1].media:
            self._screen.verbs.attach(media)
        self._screen.composer.put(self._screen.composer.text + path[-1].text)
        self._screen.composer.focus()
        self._screen.say("editing: Enter asks it as a branch beside the old one, Esc leaves it as it was")

    def on_copy(self, turn: int, detail: str = "") -> None:
        self._copy(self._talk.tree[turn].text, "the message")

    def on_copy_code(self, turn: int, detail: str = "") -> None:
        """The last program of a message."""
        code = [block.source for block in blocks_of(self._talk.tree[turn].text) if block.kind == "code"]
        if code:
            self._copy(code[-1], "the code")
        else:
            self._screen.say("there is no code in this message")

    def on_copy_block(self, turn: int, detail: str) -> None:
        self._copy(detail, "the code")

    def _copy(self, text: str, what: str) -> None:
        self._app.copy_to_clipboard(printable(text))
        self._screen.say(f"copied {what} ({len(text):,} characters)")

    def slash_regenerate(self, argument: str) -> None:
        if self._talk.tree.leaf:
            self.on_regenerate(self._talk.tree.leaf)

    def slash_edit(self, argument: str) -> None:
        if self._talk.tree.leaf:
            self.on_edit(self._talk.tree.leaf)

    def slash_copy(self, argument: str) -> None:
        answers = [turn for turn in self._talk.tree.path() if turn.role == "assistant"]
        if answers:
            self.on_copy(answers[-1].id)

    def slash_raw(self, argument: str) -> None:
        self._screen.transcript.action_raw()
