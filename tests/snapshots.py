"""Screens as text: each cell, and the style of each run of cells. `python tests/snapshots.py` rewrites the files.

Text snapshots can be reviewed in a diff, and need no plugin.
"""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

from rich.style import Style

from qwen35_local.engine import EngineInfo
from qwen35_local.events import ToolCall
from tui.app import ChatApp
from tui.chat.turns import Turn

GOLDEN = Path(__file__).parent / "golden" / "tui"
SIZES = ((80, 24), (140, 45))
THEMES = ("qwen-dark", "qwen-light")
ANSWER = """The sum is **42**, because `17 + 25`:

| a | b | a + b |
|---|--:|------:|
| 17 | 25 | 42 |

1. first the tens
2. then the ones
   - with a carry

```python
def add(a, b):
    return a + b  # no carry here
```

> Said plainly: forty-two. See [the rules](https://example.org).
"""
STATS = {
    "tokens": 99,
    "speed": 31.5,
    "first": 0.4,
    "prompt": 120,
    "cached": 64,
    "memory": 9 << 20,
    "prompt_speed": 800.0,
}
TURNS = (
    Turn(1, 0, "user", "What is 17 + 25?"),
    Turn(2, 1, "assistant", "41", stats=STATS),
    Turn(3, 1, "assistant", ANSWER, "Tens and ones.", seconds=2.5, stats=STATS),
    Turn(4, 3, "user", "And 6 times 7?"),
    Turn(5, 4, "assistant", "", tool_calls=(ToolCall("calculate", {"a": 6, "operation": "*", "b": 7}, "c"),)),
    Turn(6, 5, "tool", "42", tool_call_id="c"),
    Turn(7, 6, "assistant", "It is 42 again.", status="stopped"),
    Turn(8, 7, "user", "Go on"),
    Turn(9, 8, "assistant", "Half of", status="error", error="the device is gone"),
)


class Still:
    """Stands in for the engine's thread: ready, and silent."""

    def __init__(self) -> None:
        from tui.chat.host import Ready

        self.info = EngineInfo("miniature", "mlx", 32768, 2048, 8_350_320, "mxfp4", False, 9 << 20, "CPU")
        self.state = Ready(self.info)

    def start(self) -> None: ...

    def close(self) -> None: ...


PLAN = {"process": 250 * 10**6, "trunk": 6_600_000_000, "keys and values of 32768 tokens": 1_200_000_000}


async def _chat(app: ChatApp, pilot) -> None: ...


async def _loading(app: ChatApp, pilot) -> None:
    """A first start: nothing said yet, the model under way."""
    from tui.chat.host import Loading

    app.host.state = Loading(4 << 30, 16 << 30, 6.0, PLAN)  # type: ignore[misc]
    app.talk.new()
    app.chat.redraw()


async def _new(app: ChatApp, pilot) -> None:
    app.talk.new()
    app.chat.redraw()


async def _models(app: ChatApp, pilot) -> None:
    from tui.models import ModelChoice

    app.find_models = lambda: [
        ModelChoice("miniature", "ships with the package", app.host.start),  # type: ignore[arg-type]
        ModelChoice("Qwen3.5-397B-A17B-4bit", "205 GiB", app.host.start),  # type: ignore[arg-type]
    ]
    await pilot.press("f5")


def _key(*keys: str) -> Callable[[ChatApp, object], Awaitable[None]]:
    async def press(app: ChatApp, pilot) -> None:
        await pilot.press(*keys)

    return press


SCREENS: dict[str, Callable[..., Awaitable[None]]] = {
    "chat": _chat,
    "unfolded": _key("ctrl+t"),
    "chosen": _key("shift+tab", "up", "up"),
    "suggestions": _key("/", "t"),
    "help": _key("f1"),
    "chats": _key("f2"),
    "settings": _key("f3"),
    "numbers": _key("f4"),
    "loading": _loading,
    "new": _new,
    "models": _models,
}


async def shoot(name: str, size: tuple[int, int], theme: str) -> str:
    """The screen's cells and styles."""
    app = ChatApp(lambda progress: None, None, {"theme": theme})  # type: ignore[arg-type, return-value]
    app.host = app.talk._host = Still()  # type: ignore[assignment]
    async with app.run_test(size=size) as pilot:
        for turn in TURNS:
            app.talk.tree.put(turn)
        app.history.put(app.talk.chat, TURNS, 9)
        app.history._db.execute("UPDATE chats SET updated = 0")
        app.chat.composer.cursor_blink = False
        app.chat.redraw()
        await pilot.pause()
        await SCREENS[name](app, pilot)
        _ = app.chat.transcript.lines  # measures all, as the app does by and by: guesses would move the scroll bar
        app.chat.transcript._changed()
        for timer in list(app.chat._timers):  # the spinner stands still
            timer.stop()
        app.chat._tick = 0
        app.chat._poll()
        await pilot.pause()
        await pilot.pause()
        return described([list(strip) for strip in app.screen._compositor.render_strips()])


def described(lines: list) -> str:
    """One line of text for each of the screen, then the styles by letter, then their runs line by line."""
    names: dict[str, str] = {}
    text, runs = [], []
    for line in lines:
        text.append("".join(segment.text for segment in line).rstrip())
        row, last = [], ""
        at = 0
        for segment in line:
            style = _plain(segment.style)
            name = names.setdefault(style, _letters(len(names)))
            if name != last:
                row.append(f"{at}{name}")
                last = name
            at += segment.cell_length
        runs.append(" ".join(row))
    legend = [f"{name} {style}" for style, name in names.items()]
    return "\n".join([*text, "--- styles", *legend, "--- runs", *runs]) + "\n"


def _plain(style: Style | None) -> str:
    if style is None:
        return "none"
    marks = [name for name in ("bold", "dim", "italic", "underline", "reverse", "strike") if getattr(style, name)]
    fore = style.color.get_truecolor().hex if style.color and not style.color.is_default else "-"
    back = style.bgcolor.get_truecolor().hex if style.bgcolor and not style.bgcolor.is_default else "-"
    return " ".join([fore, back, *marks])


def _letters(number: int) -> str:
    return chr(97 + number % 26) * (number // 26 + 1)


def golden(name: str, size: tuple[int, int], theme: str) -> Path:
    return GOLDEN / f"{name}-{size[0]}x{size[1]}-{theme.removeprefix('qwen-')}.txt"


if __name__ == "__main__":
    GOLDEN.mkdir(parents=True, exist_ok=True)
    for name in SCREENS:
        for size in SIZES:
            for theme in THEMES:
                golden(name, size, theme).write_text(asyncio.run(shoot(name, size, theme)))
