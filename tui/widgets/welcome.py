"""What stands where the conversation will be: the model, how far it is loaded, where its memory goes, how to begin."""

from rich.text import Text
from textual.app import ComposeResult
from textual.containers import Vertical
from textual.widgets import Static

from qwen35_local.engine import EngineInfo

from ..chat.host import Failed, Loading, Ready, State
from ..palette import Palette
from ..render.lines import wrapped
from ..render.pieces import duration
from ..safe import printable
from .status import bar, size

WIDTH = 58  # cells of the block at most
DEMONSTRATION = "miniature"
TRY = "a demonstration with little to say: try “What is 17 + 25?”"
HINTS = (
    ("Enter", "sends", "Ctrl+J", "new line"),
    ("/", "commands", "@", "files and pictures"),
    ("F1", "help", "F2", "earlier chats"),
)


def welcome(state: State, palette: Palette, width: int, height: int) -> Text:
    """Lines of one width, so that they can be centred as a block; what does not fit the height is left out."""
    width = max(min(WIDTH, width), 16)
    head = [Text("qwen35", palette.heading)]
    match state:
        case Loading():
            about, more = _loading(state, palette, width), _plan(state, palette, width)
        case Ready(info):
            about, more = _model(info, palette, width), []
        case Failed(message):
            about, more = _paragraph(f"✗ {printable(message)}", palette, width, "error"), []
            about += _paragraph("/model chooses another model", palette, width, "dim")
    hints = [_hint(row, palette) for row in HINTS]
    lines = [*head, *about]
    for group in (more, hints):
        if group and len(lines) + 1 + len(group) <= height:
            lines += [Text(""), *group]
    for line in lines:
        line.pad_right(max(width - line.cell_len, 0))
    return Text("\n").join(lines)


def _model(info: EngineInfo, palette: Palette, width: int) -> list[Text]:
    count = info.parameters
    weights = f"{count / 1e9:,.0f} B" if count >= 1e10 else f"{count / 1e6:,.1f} M"
    what = [printable(info.model), *([f"{weights} parameters", info.quantization] if count else [])]
    how = [f"{info.backend} {info.device}", f"{info.context:,} tokens"]
    how.append("sees pictures" if info.vision else "text alone")
    about = [*_paragraph(" · ".join(what), palette, width), *_paragraph(" · ".join(how), palette, width, "dim")]
    return about + (_paragraph(TRY, palette, width, "dim") if info.model == DEMONSTRATION else [])


def _loading(state: Loading, palette: Palette, width: int) -> list[Text]:
    if not state.total:
        return [Text("loading the model", palette.dim)]
    share = state.done / state.total
    left = f", {duration(state.seconds / share - state.seconds)} left" if 0.02 < share < 1 and state.seconds > 1 else ""
    text = Text(f"loading {share:.0%} of {size(state.total)}{left}", palette.dim)
    return [text, bar(share, width, palette, palette.accent)]


def _plan(state: Loading, palette: Palette, width: int) -> list[Text]:
    if not state.plan:
        return []
    rows = [(name, nbytes) for name, nbytes in state.plan.items() if nbytes]
    rows.append(("in all", sum(state.plan.values())))
    return [
        Text("where the memory goes", palette.base),
        *(Text(f"{size(nbytes):>9}  {name}"[:width], palette.dim) for name, nbytes in rows),
    ]


def _paragraph(text: str, palette: Palette, width: int, role: str = "base") -> list[Text]:
    return wrapped(Text(text, getattr(palette, role)), width)


def _hint(row: tuple[str, ...], palette: Palette) -> Text:
    text = Text()
    for at, word in enumerate(row):
        room = (8, 16, 8, 0)[at]
        text.append(f"{word:{room}}" if room else word, palette.accent if at % 2 == 0 else palette.dim)
    return text


class Welcome(Vertical):
    """Shown while nothing is said."""

    DEFAULT_CSS = """
    Welcome { height: 1fr; align: center middle; }
    Welcome > Static { width: auto; height: auto; }
    """

    def __init__(self, **options):
        super().__init__(**options)
        self._said: Text | None = None
        self._about: tuple[State, Palette] | None = None

    def compose(self) -> ComposeResult:
        yield Static()

    def on_resize(self) -> None:
        if self._about is not None:
            self.tell(*self._about)

    def tell(self, state: State, palette: Palette) -> None:
        self._about = state, palette
        said = welcome(state, palette, self.size.width - 4, self.size.height)
        if self._said is None or (said.plain, said.spans) != (self._said.plain, self._said.spans):
            self._said = said
            self.query_one(Static).update(said)
