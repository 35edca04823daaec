"""Choose another model; the one in use is closed first."""

from rich.text import Text
from textual import on
from textual.app import ComposeResult
from textual.containers import Vertical
from textual.widgets import OptionList, Static
from textual.widgets.option_list import Option

from ..models import ModelChoice
from ..palette import Palette
from ..safe import one_line
from .dialog import Dialog


class ModelScreen(Dialog[ModelChoice]):
    def __init__(self, choices: list[ModelChoice], palette: Palette, current: str):
        super().__init__()
        self._choices, self._palette, self._current = choices, palette, current

    def compose(self) -> ComposeResult:
        with Vertical(id="frame") as frame:
            frame.border_title = "Models"
            yield OptionList(id="found", markup=False)
            yield Static("Enter opens it in place of the one in use · Esc closes", id="hint", markup=False)

    def on_mount(self) -> None:
        listing = self.query_one(OptionList)
        width = max((len(choice.name) for choice in self._choices), default=0)
        for choice in self._choices:
            line = Text("● " if choice.name == self._current else "  ", self._palette.accent)
            line.append(f"{one_line(choice.name, 60):{min(width, 60)}}  ", self._palette.base)
            line.append(one_line(choice.about, 60), self._palette.dim)
            listing.add_option(Option(line))
        listing.focus()

    @on(OptionList.OptionSelected)
    def _open(self, event: OptionList.OptionSelected) -> None:
        self.dismiss(self._choices[event.option_index])
