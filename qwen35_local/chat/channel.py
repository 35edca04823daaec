"""Text on its way out: shown as early as it can be, held back while its end may still mean something else."""

from collections.abc import Sequence
from typing import TypeVar

from ..events import Reasoning, Text, TokenLogprob

Shown = TypeVar("Shown", Text, Reasoning)
Piece = tuple[str, tuple[TokenLogprob, ...]]


class Channel:
    """One kind of text. Newlines at its start are dropped and those at its end held back: they belong to the template.

    Not if `exact`. `stops` end the text where the first of them is complete; `markers` (at the start of a line) are
    found and reported.
    """

    def __init__(
        self,
        kind: type[Text] | type[Reasoning],
        stops: Sequence[str] = (),
        markers: Sequence[str] = (),
        exact: bool = False,
    ):
        self._kind = kind
        self._exact = exact
        self._stops = stops
        self._markers = markers
        self._held = ""
        self._logprobs: list[tuple[int, TokenLogprob]] = []  # (offset in _held where the token's text begins, …)
        self._last = "\n"  # the last character shown
        self.begun = False  # anything but newlines so far
        self.stopped: str | None = None  # the stop string that matched

    def push(self, text: str, logprobs: Sequence[TokenLogprob] = ()) -> list[Text | Reasoning]:
        """Add text; show what cannot be part of anything else. Nothing comes out after a stop string matched."""
        if self.stopped is not None:
            return []
        self._logprobs += [(len(self._held), logprob) for logprob in logprobs]
        self._held += text
        if not self.begun and not self._exact:
            self._drop_front(len(self._held) - len(self._held.lstrip("\n")))
            self.begun = bool(self._held)
        if match := self._first_stop():
            start, self.stopped = match
            shown = self._show(start)
            self._take()
            return shown
        return self._show(self._safe() if (marker := self._marker()) is None else self._before(marker))

    def take_marked(self) -> Piece | None:
        """Text from a marker on (and the newlines before it), taken out; None if no marker was found."""
        return None if self._marker() is None else self._take()

    def forget_markers(self) -> None:
        self._markers = ()

    def flush(self) -> list[Text | Reasoning]:
        """Show all that is held: nothing else can follow."""
        return self._show(len(self._held))

    def end(self) -> list[Text | Reasoning]:
        """Show all that is held but newlines at the end, which are the template's; the next text begins anew."""
        shown = self._show(self._before(len(self._held)))
        self._take()
        self.begun, self._last = False, "\n"
        return shown

    def _take(self) -> Piece:
        piece = self._held, tuple(logprob for _, logprob in self._logprobs)
        self._held, self._logprobs = "", []
        return piece

    def _drop_front(self, count: int) -> None:
        self._held = self._held[count:]
        self._logprobs = [(max(offset - count, 0), logprob) for offset, logprob in self._logprobs]

    def _show(self, count: int) -> list[Text | Reasoning]:
        if count <= 0:
            return []
        text = self._held[:count]
        shown = tuple(logprob for offset, logprob in self._logprobs if offset < count)
        self._logprobs = self._logprobs[len(shown) :]
        self._drop_front(count)
        self._last = text[-1]
        return [self._kind(text, shown)]

    def _first_stop(self) -> tuple[int, str] | None:
        """(start, stop string) of the match that is complete first; of several that end together the longest."""
        ends = [(start + len(stop), start, stop) for stop in self._stops if (start := self._held.find(stop)) >= 0]
        return min(ends)[1:] if ends else None

    def _marker(self) -> int | None:
        starts = [start for marker in self._markers if (start := self._line_start(marker)) is not None]
        return min(starts, default=None)

    def _line_start(self, marker: str) -> int | None:
        start = self._held.find(marker)
        while start >= 0:
            if (self._held[start - 1] if start else self._last) == "\n":
                return start
            start = self._held.find(marker, start + 1)
        return None

    def _safe(self) -> int:
        """How much of what is held can neither begin a stop string or a marker, nor be newlines before what follows."""
        held, words = self._held, (*self._stops, *self._markers)
        firsts = {word[0] for word in words}
        for start, char in enumerate(held):
            if char in firsts and any(word.startswith(held[start:]) for word in words):
                return self._before(start)
        return self._before(len(held))

    def _before(self, offset: int) -> int:
        """`offset`, moved to before the newlines that precede it."""
        return offset if self._exact else len(self._held[:offset].rstrip("\n"))
