"""Keys and commands, from the tables that define them."""

from collections.abc import Mapping, Sequence

from rich.text import Text

from ..keys import Key
from ..palette import Palette
from ..slash import COMMANDS
from .dialog import Reader

EXTRA = (
    ("enter", "Send"),
    ("ctrl+j", "New line (also shift+enter where the terminal tells it apart)"),
    ("up / down", "Earlier and later questions, in the composer"),
    ("tab", "To the conversation and back"),
    ("@", "Complete a path"),
)


class HelpScreen(Reader):
    def __init__(self, palette: Palette, groups: Mapping[str, Sequence[Key]]):
        super().__init__("Help", helping(palette, groups))


def helping(palette: Palette, groups: Mapping[str, Sequence[Key]]) -> Text:
    """All that can be typed and pressed; `groups` are keys by where they work."""
    text = Text()

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
    for title, keys in groups.items():
        text.append(f"\n{title}\n", palette.heading)
        for key in keys:
            row(key.keys.replace(",", ", "), key.description, key.name)
    text.append("\n/keys NAME KEY changes a key that has a name, /keys NAME gives it back its own.", palette.dim)
    return text
