"""Choose another model; the one in use is closed first."""

from rich.text import Text
from textual import on
from textual.app import ComposeResult
from textual.containers import Vertical
from textual.widgets import OptionList, Static
from textual.widgets.option_list import Option

from qwen35_local.engine import EngineInfo

from ..models import ModelChoice
from ..palette import Palette
from ..safe import one_line
from .dialog import Dialog


class ModelScreen(Dialog[ModelChoice]):
    def __init__(self, choices: list[ModelChoice], palette: Palette, info: EngineInfo | None):
        super().__init__()
        self._choices, self._palette, self._info = choices, palette, info

    def compose(self) -> ComposeResult:
        with Vertical(id="frame") as frame:
            frame.border_title = "Models"
            yield OptionList(id="found", markup=False)
            yield Static("Enter opens it in place of the one in use · Esc closes", id="hint", markup=False)

    def on_mount(self) -> None:
        listing = self.query_one(OptionList)
        width = max((len(choice.name) for choice in self._choices), default=0)
        for choice in self._choices:
            line = Text("● " if choice.is_open(self._info) else "  ", self._palette.accent)
            line.append(f"{one_line(choice.name, 60):{min(width, 60)}}  ", self._palette.base)
            line.append(one_line(choice.about, 60), self._palette.dim)
            listing.add_option(Option(line))
        opened = (at for at, choice in enumerate(self._choices) if choice.is_open(self._info))
        listing.highlighted = next(opened, 0)
        listing.focus()

    @on(OptionList.OptionSelected)
    def _open(self, event: OptionList.OptionSelected) -> None:
        self.dismiss(self._choices[event.option_index])
