"""Where one types. Enter sends, Ctrl+J is a new line; long pastes and pictures stand as one token each."""

import re

from textual import events
from textual.binding import Binding
from textual.message import Message
from textual.widgets import TextArea

from ..safe import printable

FOLD_CHARACTERS = 4_000  # a longer paste is folded into a token
FOLD_LINES = 30
IMAGE_TOKEN = re.compile(r"\[(?:Image|Video) #\d+\] ?")
TOKEN = re.compile(r"\[(?:Image|Video) #\d+\]|\[Paste #(\d+): [^\]\n]*\]")


class Composer(TextArea):
    """A text area with history and tokens. `Sent` carries the text with its pastes unfolded."""

    BINDINGS = [  # noqa: RUF012
        Binding("ctrl+j,shift+enter,alt+enter", "newline", "New line", show=False, priority=True),
        # Ctrl+Z suspends, as everywhere in a terminal; undo keeps Readline's key.
        Binding("ctrl+z", "app.suspend_process", "Suspend", show=False),
        Binding("ctrl+underscore", "undo", "Undo", show=False),
        Binding("ctrl+u", "clear", "Clear", show=False, priority=True),
    ]
    DEFAULT_CSS = """
    Composer { height: auto; min-height: 3; max-height: 10; border: round $border-blurred; padding: 0 1;
               background: $background; scrollbar-size-vertical: 1; }
    Composer:focus { border: round $border; background: $background; }
    """

    class Sent(Message):
        def __init__(self, text: str):
            self.text = text
            super().__init__()

    class Pasted(Message):
        """A paste that may be a picture; whoever handles it calls `take` if it is not."""

        def __init__(self, composer: "Composer", text: str):
            self.composer, self.text = composer, text
            super().__init__()

    class Interrupted(Message):
        """Ctrl+C, in its place among the keys and what they sent."""

    class Typed(Message):
        """The text or the cursor changed; `word` is what stands before the cursor in its line."""

        def __init__(self, before: str, text: str):
            self.before, self.text = before, text
            super().__init__()

    def __init__(self, **options):
        super().__init__(soft_wrap=True, tab_behavior="focus", show_line_numbers=False, **options)
        self.sent: list[str] = []
        self._at: int | None = None  # place in the history while it is leafed through
        self._kept = ""
        self._pastes: dict[int, str] = {}
        self.suggesting = False  # a list of suggestions is open: arrows, Tab and Enter belong to it

    # --- text

    @property
    def expanded(self) -> str:
        """The text with every paste in full."""
        return TOKEN.sub(lambda m: self._pastes.get(int(m[1]), m[0]) if m[1] else m[0], self.text)

    @property
    def draft(self) -> str:
        """What can be kept of it: pastes in full, without the tokens of pictures."""
        return IMAGE_TOKEN.sub("", self.expanded)

    def put(self, text: str) -> None:
        """Replace everything."""
        self.text = text
        self.move_cursor(self.document.end)
        self._at = None

    def take(self, text: str) -> None:
        """Insert pasted text; a long one as a token."""
        text = printable(text.replace("\r\n", "\n").replace("\r", "\n"))
        lines = text.count("\n") + 1
        if len(text) > FOLD_CHARACTERS or lines > FOLD_LINES:
            number = max(self._pastes, default=0) + 1
            self._pastes[number] = text
            size = f"{lines:,} lines" if lines > 1 else f"{len(text):,} characters"
            text = f"[Paste #{number}: {size}]"
        self.replace(text, *self.selection, maintain_selection_offset=False)

    def remember(self, text: str) -> None:
        if text.strip() and (not self.sent or self.sent[-1] != text):
            self.sent.append(text)

    def interrupt(self) -> None:
        """Say `Interrupted` once all keys so far are dealt with: a question must be sent before it is stopped."""
        self.call_later(lambda: self.post_message(self.Interrupted()))

    # --- events

    def on_text_area_changed(self) -> None:
        self._tell()

    def on_text_area_selection_changed(self) -> None:
        self._tell()

    def _tell(self) -> None:
        row, column = self.cursor_location
        self.post_message(self.Typed(self.document.get_line(row)[:column], self.text))

    async def _on_paste(self, event: events.Paste) -> None:
        event.prevent_default()
        event.stop()
        self.post_message(self.Pasted(self, event.text))

    async def _on_key(self, event: events.Key) -> None:
        handled = True
        if self.suggesting and event.key in ("up", "down", "tab", "enter", "escape"):
            event.prevent_default()
            return  # bubbles to whoever shows the list
        if event.key == "enter":
            text = self.expanded
            if text.strip():
                self.post_message(self.Sent(text))
        elif event.key == "up" and self.cursor_location[0] == 0:
            self._leaf(-1)
        elif event.key == "down" and self.cursor_location[0] == self.document.line_count - 1:
            self._leaf(1)
        elif event.key in ("backspace", "delete"):
            handled = self._delete_token(event.key == "backspace")
        else:
            handled = False
        if handled or await self._edited(event.key):
            event.prevent_default()
            event.stop()
            return
        await super()._on_key(event)

    async def _edited(self, key: str) -> bool:
        """Run a key of the text area here and now; whether it is one.

        Textual runs such a key after it has bubbled up to the app: letters and Enter typed after it would come first
        while the app has much to do, and a question would be sent before it was mended.
        """
        for binding in self._bindings.key_to_bindings.get(key, ()):
            if await self.app.run_action(binding.action, self):
                return True
        return False

    def action_newline(self) -> None:
        self.replace("\n", *self.selection, maintain_selection_offset=False)

    def action_clear(self) -> None:
        self.put("")

    def _leaf(self, by: int) -> None:
        """Through what was sent before; what was being typed comes after the last."""
        if not self.sent:
            return
        at = len(self.sent) if self._at is None else self._at
        if at == len(self.sent):
            self._kept = self.text
        at = min(max(at + by, 0), len(self.sent))
        self.text = self._kept if at == len(self.sent) else self.sent[at]
        self.move_cursor(self.document.end if by < 0 else (self.document.line_count - 1, 0))
        self.move_cursor(self.document.end)
        self._at = None if at == len(self.sent) else at

    def _delete_token(self, backwards: bool) -> bool:
        """Delete the whole token before or after the cursor; whether there is one."""
        if not self.selection.is_empty:
            return False
        row, column = self.cursor_location
        line = self.document.get_line(row)
        for match in TOKEN.finditer(line):
            if column == (match.end() if backwards else match.start()) or match.start() < column < match.end():
                self.delete((row, match.start()), (row, match.end()))
                return True
        return False
