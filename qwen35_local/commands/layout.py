"""Labelled lines for a terminal of any width."""

import shutil
import sys
import textwrap
from collections.abc import Iterator, Sequence

NARROWEST = 40  # columns of text; below it wrapping helps nobody


def labelled(rows: Sequence[tuple[str, str]], width: int | None = None) -> Iterator[str]:
    """`label  text` lines with the texts in one column. Where a terminal shows them (of `width` columns, by default the
    real one) long texts go on beneath themselves; in a pipe each row stays one line."""
    if width is None and sys.stdout.isatty():
        width = shutil.get_terminal_size().columns
    start = max((len(label) for label, _ in rows), default=0) + 2
    for label, text in rows:
        lines = textwrap.wrap(text, max(width - start, NARROWEST), break_on_hyphens=False) if width else [text]
        for number, line in enumerate(lines or [""]):
            yield f"{'' if number else label:{start}}{line}".rstrip()
