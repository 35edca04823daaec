"""Keys and commands, from the tables that define them."""

from collections.abc import Mapping, Sequence

from rich.text import Text
from textual.app import ComposeResult
from textual.containers import Vertical, VerticalScroll
from textual.widgets import Static

from ..keys import Key
from ..palette import Palette
from ..slash import COMMANDS
from .dialog import Dialog

EXTRA = (
    ("enter", "Send"),
    ("ctrl+j", "New line (also shift+enter where the terminal tells it apart)"),
    ("up / down", "Earlier and later questions, in the composer"),
    ("tab", "To the conversation and back"),
    ("@", "Complete a path"),
)


class HelpScreen(Dialog[None]):
    def __init__(self, palette: Palette, groups: Mapping[str, Sequence[Key]]):
        super().__init__()
        self._palette, self._groups = palette, groups

    def compose(self) -> ComposeResult:
        with Vertical(id="frame") as frame:
            frame.border_title = "Help"
            with VerticalScroll():
                yield Static(self._text())

    def on_mount(self) -> None:
        self.query_one(VerticalScroll).styles.height = "auto"
        self.query_one(VerticalScroll).styles.max_height = max(self.app.size.height - 6, 5)
        self.query_one(VerticalScroll).focus()

    def _text(self) -> Text:
        palette, text = self._palette, Text()

        def row(left: str, right: str, name: str = "") -> None:
            text.append(f"  {left:22} ", palette.accent)
            text.append(right, palette.base)
            text.append(f"  {name}\n" if name else "\n", palette.dim)

        text.append("Commands\n", palette.heading)
        for command in COMMANDS:
            row(f"/{command.name} {command.argument}".strip(), command.help)
        text.append("\nTyping\n", palette.heading)
        for key, what in EXTRA:
            row(key, what)
        for title, keys in self._groups.items():
            text.append(f"\n{title}\n", palette.heading)
            for key in keys:
                row(key.keys.replace(",", ", "), key.description, key.name)
        text.append("\n/keys NAME KEY changes a key that has a name, /keys NAME gives it back its own.", palette.dim)
        return text
