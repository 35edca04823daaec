"""The choices: Enter goes to the next value, text opens in a window."""

from rich.text import Text
from textual import on
from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Vertical
from textual.widgets import OptionList, Static
from textual.widgets.option_list import Option

from ..safe import one_line
from ..settings import PRESETS, THEMES
from .dialog import Dialog, TextDialog

BUDGETS = (None, 256, 1024, 4096, 16384)  # tokens of thinking; others by /think N
ROWS = ("thinking", "thinking_budget", "tools", "preset", "theme", "system")
NAMES = {"thinking_budget": "  budget"}
HELP = {
    "thinking": "the model thinks before it answers",
    "thinking_budget": "tokens of it at most",
    "tools": "calculator, clock, search in these chats",
    "preset": "how tokens are chosen",
    "theme": "colours",
    "system": "said before every chat",
}


class SettingsScreen(Dialog[None]):
    """Changes the app's preferences at once."""

    BINDINGS = [  # noqa: RUF012
        Binding("right,space", "change(1)", "Next value"),
        Binding("left", "change(-1)", "Value before"),
    ]

    def compose(self) -> ComposeResult:
        with Vertical(id="frame") as frame:
            frame.border_title = "Settings"
            yield OptionList(id="rows", markup=False)
            yield Static("Enter or → next value · ← the one before · Esc closes", id="hint")

    def on_mount(self) -> None:
        self._fill()
        self.query_one(OptionList).focus()

    def _fill(self) -> None:
        listing = self.query_one(OptionList)
        at = listing.highlighted or 0
        listing.clear_options()
        palette = self.app.palette  # type: ignore[attr-defined]
        for name in ROWS:
            line = Text(f"{NAMES.get(name, name):9}", palette.base)
            line.append(f"{self._shown(name):16} ", palette.accent)
            line.append(HELP[name], palette.dim)
            listing.add_option(Option(line))
        listing.highlighted = at

    def _shown(self, name: str) -> str:
        value = getattr(self.app.preferences, name)  # type: ignore[attr-defined]
        if isinstance(value, bool):
            return "on" if value else "off"
        if value is None:
            return "no limit"
        return one_line(value, 30) or "(none)" if isinstance(value, str) else f"{value:,}"

    @on(OptionList.OptionSelected)
    def _selected(self) -> None:
        self.action_change(1)

    def action_change(self, by: int) -> None:
        name = ROWS[self.query_one(OptionList).highlighted or 0]
        value = getattr(self.app.preferences, name)  # type: ignore[attr-defined]
        if name == "system":
            self.app.push_screen(TextDialog("System prompt", value, lines=8), self._system)
            return
        choices = {"preset": tuple(PRESETS), "theme": THEMES, "thinking_budget": BUDGETS}
        values = choices.get(name, (False, True))
        at = values.index(value) + by if value in values else 0
        self.app.prefer(**{name: values[at % len(values)]})  # type: ignore[attr-defined]
        self._fill()

    def _system(self, text: str | None) -> None:
        if text is not None:
            self.app.prefer(system=text)  # type: ignore[attr-defined]
            self._fill()
