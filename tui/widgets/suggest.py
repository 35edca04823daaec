"""The list above the composer: slash commands and file names that fit what is typed."""

from dataclasses import dataclass
from pathlib import Path

from textual.widgets import OptionList
from textual.widgets.option_list import Option

from ..safe import one_line
from ..slash import matching
from .composer import IMAGE_TOKEN

MOST = 8


@dataclass(frozen=True, slots=True)
class Suggestion:
    """`text` takes the place of the last `replaces` characters before the cursor."""

    text: str
    replaces: int
    label: str
    help: str = ""

    def completes(self, typed: str) -> bool:
        """Whether a command is whole with it: one that was typed out, or "/image" with a file."""
        if typed.startswith("/image "):
            return not self.text.endswith("/")
        return typed.startswith("/") and typed.strip() == self.text.strip()


def suggestions(before: str, folder: Path) -> list[Suggestion]:
    """For the text before the cursor: commands after a leading slash, files after "@" or "/image "."""
    before = IMAGE_TOKEN.sub("", before)
    if before.startswith("/") and " " not in before:
        found = matching(before)
        return [Suggestion(f"/{c.name} ", len(before), f"/{c.name} {c.argument}".strip(), c.help) for c in found][:MOST]
    if before.startswith("/image "):
        return paths(before.removeprefix("/image "), folder, "")
    word = before.rsplit(" ", 1)[-1]
    if word.startswith("@"):
        return paths(word[1:], folder, "@")
    return []


def paths(typed: str, folder: Path, mark: str) -> list[Suggestion]:
    """Files and folders that continue `typed`; hidden ones only when a dot is typed."""
    head, _, start = typed.rpartition("/")
    try:
        base = Path(typed[: len(typed) - len(start)]).expanduser() if head or typed.startswith("/") else Path()
        entries = sorted((folder / base).iterdir(), key=lambda path: (not path.is_dir(), path.name.lower()))
    except (OSError, RuntimeError):
        return []
    found = []
    for entry in entries:
        name = entry.name
        if not name.lower().startswith(start.lower()) or (name.startswith(".") and not start.startswith(".")):
            continue
        tail = "/" if entry.is_dir() else ""
        whole = typed[: len(typed) - len(start)] + name + tail
        found.append(Suggestion(mark + whole, len(mark) + len(typed), one_line(name + tail, 60)))
        if len(found) == MOST:
            break
    return found


class Suggestions(OptionList, can_focus=False):
    DEFAULT_CSS = """
    Suggestions { height: auto; max-height: 10; display: none; border: round $border-blurred; background: $background;
                  padding: 0 1; }
    Suggestions.-shown { display: block; }
    """

    def __init__(self, **options):
        super().__init__(markup=False, **options)
        self.found: list[Suggestion] = []

    def offer(self, found: list[Suggestion]) -> None:
        """Show these; none hides the list."""
        if found == self.found:
            return
        self.found = found
        self.set_class(bool(found), "-shown")
        self.clear_options()
        width = max((len(s.label) for s in found), default=0)
        self.add_options([Option(f"{s.label:{width}}  {s.help}".rstrip()) for s in found])
        if found:
            self.highlighted = 0

    @property
    def picked(self) -> Suggestion | None:
        return self.found[self.highlighted] if self.found and self.highlighted is not None else None
