"""Choose a picture from the disk, with a look at it."""

from pathlib import Path

from rich.text import Text
from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Horizontal, Vertical
from textual.widgets import OptionList, Static
from textual.widgets.option_list import Option

from qwen35_local.errors import MediaError

from ..palette import Palette
from ..safe import one_line
from ..vision.load import is_media, load
from .dialog import Dialog
from .preview import Canvas

MOST = 2000  # entries of one folder


class BrowseScreen(Dialog[Path]):
    BINDINGS = [Binding("left,backspace", "up", "Folder above")]  # noqa: RUF012
    CSS = """
    BrowseScreen > #frame { height: 90%; }
    BrowseScreen Horizontal { height: 1fr; }
    BrowseScreen OptionList { width: 1fr; max-height: 100%; height: 100%; }
    """

    def __init__(self, folder: Path, palette: Palette):
        super().__init__()
        self._folder = folder
        self._palette = palette
        self._entries: list[Path] = []

    def compose(self) -> ComposeResult:
        with Vertical(id="frame") as frame:
            frame.border_title = "Pictures"
            with Horizontal():
                yield OptionList(id="entries", markup=False)
                yield Canvas(None, self._palette)
            yield Static("Enter opens or attaches · ← folder above · Esc closes", id="hint", markup=False)

    def on_mount(self) -> None:
        self.query_one(OptionList).focus()
        self._fill(self._folder)

    def _fill(self, folder: Path) -> None:
        """List the folders and pictures of a folder; one that cannot be read leaves the list as it is."""
        try:
            found = [path for path in folder.resolve().iterdir() if not path.name.startswith(".")]
            found = [path for path in found if path.is_dir() or is_media(path)][:MOST]
        except OSError as error:
            self.query_one("#hint", Static).update(f"{folder} cannot be read ({error.strerror})")
            return
        self._folder = folder.resolve()
        self._entries = sorted(found, key=lambda path: (not path.is_dir(), path.name.lower()))
        listing = self.query_one(OptionList)
        listing.clear_options()
        listing.add_option(Option(Text("../")))
        listing.add_options([Option(Text(one_line(p.name, 60) + ("/" if p.is_dir() else ""))) for p in self._entries])
        listing.highlighted = 0
        self.query_one("#frame").border_title = one_line(str(self._folder), 70)

    @on(OptionList.OptionHighlighted)
    def _look(self, event: OptionList.OptionHighlighted) -> None:
        at = event.option_index - 1
        path = self._entries[at] if 0 <= at < len(self._entries) else None
        if path is None or path.is_dir():
            self.query_one(Canvas).show(None)
        else:
            self._decode(path)

    @work(thread=True, exclusive=True)
    def _decode(self, path: Path) -> None:
        """Off the event loop: a large picture takes a moment."""
        try:
            media = load(path)
        except MediaError:
            media = None
        if self.is_attached:
            self.app.call_from_thread(self.query_one(Canvas).show, media)

    @on(OptionList.OptionSelected)
    def _pick(self, event: OptionList.OptionSelected) -> None:
        at = event.option_index - 1
        if at < 0:
            self.action_up()
        elif self._entries[at].is_dir():
            self._fill(self._entries[at])
        else:
            self.dismiss(self._entries[at])

    def action_up(self) -> None:
        self._fill(self._folder.parent)
