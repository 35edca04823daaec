"""The line at the bottom: what happens now, how full the context is, how much memory is used, what computes."""

import os
from collections.abc import Sequence

from rich.style import Style
from rich.text import Text
from textual.widget import Widget

from ..chat.facts import Facts
from ..palette import PLAIN, Palette
from ..render.pieces import duration

CELLS = 8  # of a gauge
BARS = "▁▂▃▄▅▆▇█"
SPINNER = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"


def line(facts: Facts, width: int, palette: Palette, machine: int) -> Text:
    """The line at `width` cells: the phase on the left, as many gauges on the right as fit."""
    left = _phase(facts, palette)
    parts: list[Text] = []
    if facts.context:
        parts.append(_gauge("context", facts.context_used / facts.context, palette))
    if facts.memory:
        most = facts.budget or machine
        of = f" of {size(facts.budget)}" if facts.budget else ""
        close = bool(most) and facts.memory > 0.9 * most
        parts.append(Text(f"memory {size(facts.memory)}{of}", palette.warning if close else palette.dim))
    if facts.hit_rate is not None:
        parts.append(Text(f"experts {facts.hit_rate:.0%}", palette.dim))
    if facts.disk:
        parts.append(Text(f"disk {sparkline(facts.disk)} {facts.disk[-1]:.1f} GB/s", palette.dim))
    if facts.model:
        parts.append(Text(facts.model, palette.dim))
    room = width - left.cell_len - 2
    right = Text()
    for part in parts:
        if right.cell_len + part.cell_len + 3 > room:
            break
        if right:
            right.append(" · ", palette.rule)
        right.append_text(part)
    return Text.assemble(left, " " * max(width - left.cell_len - right.cell_len, 1), right, end="", no_wrap=True)


def _phase(facts: Facts, palette: Palette) -> Text:
    spin = SPINNER[facts.tick % len(SPINNER)]
    match facts.phase:
        case "loading":
            share = f" {facts.done / facts.total:.0%} of {size(facts.total)}" if facts.total else ""
            return Text(f"{spin} loading the model{share}", palette.warning)
        case "failed":
            return Text("✗ no model", palette.error)
        case "prefill":
            eta = ""
            if facts.done and facts.total > facts.done and facts.seconds > 0.3:
                eta = f", {duration(facts.seconds / facts.done * (facts.total - facts.done))} left"
            what = f" {facts.done / facts.total:.0%} of {facts.total:,} tokens{eta}" if facts.total else ""
            if not what and facts.seconds > 1:
                what = f"  {duration(facts.seconds)}"
            return Text(f"{spin} reading{what}", palette.warning)
        case "thinking" | "answering":
            return Text(f"{spin} {facts.phase} {facts.rate:.1f} tok/s  {duration(facts.seconds)}", palette.accent)
    return Text(f"● ready  {facts.rate:.1f} tok/s" if facts.rate else "● ready", palette.dim)


def _gauge(name: str, share: float, palette: Palette) -> Text:
    share = min(max(share, 0.0), 1.0)
    style: Style = palette.error if share > 0.95 else palette.warning if share > 0.8 else palette.dim
    return Text.assemble((f"{name} ", style), bar(share, CELLS, palette, style), (f" {share:.0%}", style))


def bar(share: float, cells: int, palette: Palette, style: Style) -> Text:
    """A gauge: heavy up to the share, light beyond, so that it reads without colours too."""
    full = round(min(max(share, 0.0), 1.0) * cells)
    return Text.assemble(("━" * full, style), ("─" * (cells - full), palette.rule))


def sparkline(values: Sequence[float]) -> str:
    """The last values as bars, against the largest of them."""
    shown = values[-CELLS:]
    most = max(shown) or 1.0
    return "".join(BARS[min(int(value / most * len(BARS)), len(BARS) - 1)] for value in shown)


def size(nbytes: float) -> str:
    """ "8.6 MiB", "212 GiB"."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if nbytes < 1024:
            return f"{nbytes:.0f} {unit}" if nbytes >= 100 or unit == "B" else f"{nbytes:.1f} {unit}"
        nbytes /= 1024
    return f"{nbytes:.1f} TiB"


def machine_memory() -> int:
    """Bytes of memory in this machine; 0 where it cannot be known."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError, AttributeError):
        return 0


class Status(Widget):
    DEFAULT_CSS = """
    Status { height: 1; padding: 0 2; background: $surface; }
    """

    def __init__(self, **options):
        super().__init__(**options)
        self._facts = Facts()
        self._machine = machine_memory()
        self.palette = PLAIN

    def tell(self, facts: Facts) -> None:
        if facts != self._facts:
            self._facts = facts
            self.refresh()

    def render(self) -> Text:
        return line(self._facts, self.content_size.width, self.palette, self._machine)
