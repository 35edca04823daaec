"""What the user can do: every slash command and every key on a message ends here."""

from typing import TYPE_CHECKING

from .safe import printable
from .slash import BY_NAME

if TYPE_CHECKING:
    from .screens.chat import ChatScreen


class Verbs:
    """The verbs of one chat screen."""

    def __init__(self, screen: "ChatScreen"):
        self._screen = screen

    @property
    def _talk(self):
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
        self._talk.new()
        self._screen.redraw()

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

    def slash_quit(self, argument: str) -> None:
        self._screen.app.exit()
