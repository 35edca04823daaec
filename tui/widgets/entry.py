"""Where one types, with the list of suggestions above it: keys go to the list while it is open."""

from collections.abc import Callable
from pathlib import Path

from textual import events, on
from textual.app import ComposeResult
from textual.containers import Vertical

from .composer import IMAGE_TOKEN, Composer
from .suggest import Suggestions, suggestions


class Entry(Vertical):
    """`take_file` puts a file that was completed with "@" into the question; False leaves its name there."""

    DEFAULT_CSS = "Entry { height: auto; }"

    def __init__(self, take_file: Callable[[Path], bool], **options):
        super().__init__(**options)
        self._take_file = take_file
        self.composer = Composer(id="composer", placeholder="Ask anything")

    def compose(self) -> ComposeResult:
        yield Suggestions(id="suggestions")
        yield self.composer

    @property
    def _listing(self) -> Suggestions:
        return self.query_one(Suggestions)

    @on(Composer.Typed)
    def _typed(self, event: Composer.Typed) -> None:
        self._offer(suggestions(event.before, Path.cwd()) if event.text else [])

    def _offer(self, found: list) -> None:
        self._listing.offer(found)
        self.composer.suggesting = bool(found)

    def on_key(self, event: events.Key) -> None:
        listing = self._listing
        if not listing.found or not self.composer.has_focus:
            return
        match event.key:
            case "up":
                listing.action_cursor_up()
            case "down":
                listing.action_cursor_down()
            case "tab" | "enter":
                self._accept(event.key == "enter")
            case "escape":
                self._offer([])
            case _:
                return
        event.stop()
        event.prevent_default()

    def _accept(self, enter: bool) -> None:
        """Take the marked suggestion; Enter sends a command that is whole with it."""
        picked, composer = self._listing.picked, self.composer
        if picked is None:
            return
        typed = IMAGE_TOKEN.sub("", composer.text)
        self._offer([])
        if enter and picked.completes(typed):
            whole = typed[: len(typed) - picked.replaces] + picked.text
            self.post_message(Composer.Sent(whole))  # Textual ends a message of the composer's at us if we sent it
            return
        row, column = composer.cursor_location
        start = (row, column - picked.replaces)
        if picked.text.startswith("@") and not picked.text.endswith("/"):
            composer.delete(start, (row, column))
            if self._take_file(Path(picked.text[1:]).expanduser()):
                return
            start = (row, column) = composer.cursor_location
        composer.replace(picked.text, start, (row, column))
