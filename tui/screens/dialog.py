"""What the small windows above the chat share."""

from typing import Generic, TypeVar, cast

from rich.text import Text
from textual import on
from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Vertical, VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Input, Static, TextArea

T = TypeVar("T")


class Dialog(ModalScreen[T | None], Generic[T]):
    """A framed window; Escape closes it without a result."""

    BINDINGS = [Binding("escape", "dismiss_none", "Close")]  # noqa: RUF012
    DEFAULT_CSS = """
    Dialog { align: center middle; background: $background 60%; }
    Dialog > #frame { width: 90%; max-width: 100; height: auto; max-height: 90%; border: round $border;
                      background: $background; padding: 0 1; }
    Dialog #hint { color: $text-muted; height: auto; }
    Dialog OptionList { border: none; background: $background; height: auto; max-height: 1fr; padding: 0; }
    Dialog Input { border: none; border-bottom: solid $border-blurred; background: $background; padding: 0; height: 2; }
    Dialog OptionList, Dialog OptionList:focus, Dialog Input:focus { background-tint: $background 0%; }
    Dialog TextArea { height: 8; border: round $border-blurred; background: $background; }
    """

    def action_dismiss_none(self) -> None:
        self.dismiss(None)


class Reader(Dialog[None]):
    """A title and a text, which the arrow keys scroll."""

    def __init__(self, title: str, text: Text):
        super().__init__()
        self._title, self._text = title, text

    def compose(self) -> ComposeResult:
        with Vertical(id="frame") as frame:
            frame.border_title, frame.border_subtitle = self._title, "Esc closes"
            with VerticalScroll():
                yield Static(self._text)

    def on_mount(self) -> None:
        self._fit()
        self.query_one(VerticalScroll).focus()

    def on_resize(self) -> None:
        self._fit()

    def _fit(self) -> None:
        """As high as the text, as far as the screen allows; relative heights cannot say that."""
        scroll = self.query_one(VerticalScroll)
        scroll.styles.height = "auto"
        scroll.styles.max_height = max(self.app.size.height - 6, 3)


class TextDialog(Dialog[str]):
    """Edit a text: Enter takes it if `lines` is 1, Ctrl+S otherwise."""

    BINDINGS = [Binding("ctrl+s", "take", "Take it", priority=True)]  # noqa: RUF012

    def __init__(self, title: str, text: str, lines: int = 1):
        super().__init__()
        self._title, self._text, self._lines = title, text, lines

    def compose(self) -> ComposeResult:
        with Vertical(id="frame") as frame:
            frame.border_title = self._title
            if self._lines == 1:
                yield Input(self._text, id="text", select_on_focus=False)
            else:
                yield TextArea(self._text, id="text", soft_wrap=True)
            yield Static(
                "Enter or Ctrl+S takes it, Esc leaves it" if self._lines == 1 else "Ctrl+S takes it", id="hint"
            )

    def on_mount(self) -> None:
        self.query_one("#text").focus()

    @on(Input.Submitted)
    def action_take(self) -> None:
        field = self.query_one("#text")
        self.dismiss(field.value if isinstance(field, Input) else cast(TextArea, field).text.strip("\n"))
