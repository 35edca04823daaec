"""All numbers of one answer, and of the engine that gave it."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.text import Text

from qwen35_local.engine import EngineInfo

from ..palette import Palette
from ..safe import printable
from ..widgets.status import bar, size
from .dialog import Reader

HITS = 14  # cells of a bar
LAYERS = "layer  found in memory      slots       read    waited"
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
            *([("weights", size(info.memory))] if info.memory else []),  # servers do not tell
            ("pictures", "yes" if info.vision else "no"),
        ]
    for key, name in NAMES.items():
        value = stats.get(key)
        if value is not None and (value or key != "memory"):
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


def layer_lines(layers: Sequence[Mapping[str, Any]], palette: Palette) -> list[Text]:
    """A line for each layer: how often an expert was in memory, what was read, how long the model waited for it."""
    lines = []
    for number, layer in enumerate(layers):
        hits = float(layer.get("hit_rate", 0.0))
        style = palette.dim if hits >= 0.5 else palette.warning
        line = Text(f"{number:5}  ", palette.dim)
        line.append_text(bar(hits, HITS, palette, style)).append(f" {hits:4.0%}", palette.base)
        line.append(f"  {layer.get('slots', 0):5}  {size(layer.get('bytes_read', 0)):>9}", palette.dim)
        line.append(f"  {layer.get('stall_seconds', 0.0):6.3f} s", palette.dim)
        lines.append(line)
    return lines


class NumbersScreen(Reader):
    """`plan` is that of the memory; `layers` what each read for the last answer, where experts are streamed."""

    def __init__(
        self,
        palette: Palette,
        info: EngineInfo | None,
        stats: Mapping[str, Any],
        plan: Mapping[str, int],
        layers: Sequence[Mapping[str, Any]] = (),
    ):
        groups = {
            "": rows(info, stats),
            "memory plan": [(name, size(nbytes)) for name, nbytes in plan.items() if nbytes],
        }
        text = Text()
        for title, group in groups.items():
            if title and group:
                text.append(f"\n{title}\n", palette.heading)
            for name, value in group:
                text.append(f"{name:>34}  ", palette.dim)
                text.append(value + "\n", palette.base)
        if layers:
            text.append("\nexperts of every layer, for the last answer\n", palette.heading)
            text.append(f"{LAYERS}\n", palette.dim)
            text.append_text(Text("\n").join(layer_lines(layers, palette)))
        super().__init__("Numbers", text if text else Text("nothing is known yet"))
