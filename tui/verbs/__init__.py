"""What the user can do: every slash command and every key on a message ends here."""

from ..slash import BY_NAME
from ..widgets.composer import IMAGE_TOKEN
from .chats import ChatVerbs
from .choices import ChoiceVerbs
from .pictures import PictureVerbs
from .turns import TurnVerbs


class Verbs(TurnVerbs, ChatVerbs, ChoiceVerbs, PictureVerbs):
    """The verbs of one chat screen."""

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
        if self._busy():
            return
        media = screen.pictures.media
        if media and screen.host.info is not None and not screen.host.info.vision:
            screen.say(f"{screen.host.info.model} cannot see pictures: remove them, or open a model that can")
            return
        screen.say("")
        screen.composer.remember(text)
        text = IMAGE_TOKEN.sub("", text).strip()
        screen.pictures.clear()
        screen.composer.put("")
        if screen.editing:
            self._talk.edit(screen.editing, text, media)
            screen.editing = 0
        else:
            self._talk.ask(text, media)
        self.witness(self._talk.asked)
        screen.transcript.action_to_end()
        screen.redraw()

    def slash_continue(self, argument: str) -> None:
        """From the last word of an answer that was stopped or cut; a whole one is asked for more."""
        if not self._talk.tree.leaf or self._busy():
            return
        if self._talk.go_on():
            self._screen.transcript.action_to_end()
            self._screen.redraw()
        else:
            self.send("Continue.")

    def slash_quit(self, argument: str) -> None:
        self._app.exit()
