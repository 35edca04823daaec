"""Keys and commands, from the tables that define them."""

from collections.abc import Mapping, Sequence

from rich.text import Text

from ..keys import Key
from ..palette import Palette
from ..slash import COMMANDS
from .dialog import Reader

TYPING = (
    ("enter", "Send"),
    ("ctrl+j", "New line; in some terminals Shift+Enter"),
    ("up, down", "Earlier and later questions"),
    ("@", "Complete a path"),
)
NAMES = {"escape": "Esc", "pageup": "PgUp", "pagedown": "PgDn"}


class HelpScreen(Reader):
    def __init__(self, palette: Palette, groups: Mapping[str, Sequence[Key]]):
        super().__init__("Help", helping(palette, groups))


def helping(palette: Palette, groups: Mapping[str, Sequence[Key]]) -> Text:
    """All that can be typed and pressed; `groups` are keys by where they work."""
    text = Text()

    def row(left: str, right: str, name: str = "") -> None:
        text.append(f"  {left:22} ", palette.accent)
        text.append(f"{right:27} " if name else right, palette.base)
        text.append(f"{name}\n", palette.dim)

    text.append("Typing\n", palette.heading)
    for keys, what in TYPING:
        row(shown(keys), what)
    for title, group in groups.items():
        text.append(f"\n{title}\n", palette.heading)
        for key in group:
            row(shown(key.keys), key.description, key.name)
    text.append("\nCommands\n", palette.heading)
    for command in COMMANDS:
        row(f"/{command.name} {command.argument}".strip(), command.help)
    text.append("\nThe names at the right are for /keys NAME KEY, which changes a key;\n", palette.dim)
    text.append("/keys NAME gives it back its own.", palette.dim)
    return text


def shown(keys: str) -> str:
    """Keys as keyboards have them: "ctrl+o,f2" as "Ctrl+O, F2"; a letter alone stays what it is."""
    return ", ".join(_shown(key.strip()) for key in keys.split(","))


def _shown(key: str) -> str:
    return key if len(key) == 1 else "+".join(NAMES.get(part, part.capitalize()) for part in key.split("+"))
