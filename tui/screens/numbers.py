"""All numbers of one answer, and of the engine that gave it."""

from collections.abc import Mapping
from typing import Any

from rich.text import Text
from textual.app import ComposeResult
from textual.containers import Vertical, VerticalScroll
from textual.widgets import Static

from qwen35_local.engine import EngineInfo

from ..palette import Palette
from ..safe import printable
from ..widgets.status import size
from .dialog import Dialog

UNITS = {"speed": " tok/s", "prompt_speed": " tok/s", "first": " s"}
NAMES = {
    "prompt": "prompt tokens",
    "cached": "of them reused",
    "tokens": "answer tokens",
    "speed": "answer speed",
    "prompt_speed": "prompt speed",
    "first": "first token after",
    "memory": "peak memory",
}


def rows(info: EngineInfo | None, stats: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(name, value) of everything that is known; what only one backend tells comes last."""
    found: list[tuple[str, str]] = []
    if info is not None:
        found = [
            ("model", info.model),
            ("backend", f"{info.backend} {info.device}".strip()),
            ("parameters", f"{info.parameters:,}"),
            ("quantization", info.quantization),
            ("context", f"{info.context:,} tokens"),
            ("weights", size(info.memory)),
            ("pictures", "yes" if info.vision else "no"),
        ]
    for key, name in NAMES.items():
        if key in stats:
            value = stats[key]
            shown = size(value) if key == "memory" else f"{value:,.2f}" if isinstance(value, float) else f"{value:,}"
            found.append((name, shown + UNITS.get(key, "")))
    return found + _flat(stats.get("extra", {}), "")


def _flat(values: Mapping[str, Any], before: str) -> list[tuple[str, str]]:
    """What the backend alone knows; groups of numbers under the name of the group."""
    found: list[tuple[str, str]] = []
    for key, value in values.items():
        name = f"{before}{key.replace('_', ' ')}"
        if isinstance(value, Mapping):
            found += _flat(value, f"{name}: ")
        elif value != "":
            sized = "bytes" in key and isinstance(value, int | float)
            found.append((printable(name), size(value) if sized else printable(str(value))))
    return found


class NumbersScreen(Dialog[None]):
    def __init__(self, palette: Palette, info: EngineInfo | None, stats: Mapping[str, Any]):
        super().__init__()
        self._palette, self._rows = palette, rows(info, stats)

    def compose(self) -> ComposeResult:
        text = Text()
        for name, value in self._rows:
            text.append(f"{name:>26}  ", self._palette.dim)
            text.append(value + "\n", self._palette.base)
        with Vertical(id="frame") as frame:
            frame.border_title = "Numbers"
            with VerticalScroll() as scroll:
                scroll.styles.height = "auto"
                yield Static(text if self._rows else Text("nothing is known yet"))
