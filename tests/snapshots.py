"""Screens as text: each cell, and the style of each run of cells. `python tests/snapshots.py [SCREEN…]` rewrites them.

Text snapshots can be reviewed in a diff, and need no plugin.
"""

import asyncio
import io
import sys
import tempfile
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

from PIL import Image, ImageDraw
from rich.style import Style
from textual.widgets import Static

from qwen35_local.bridge import Gone
from qwen35_local.engine import EngineInfo, ImagePart, Seen, VideoPart
from qwen35_local.events import ToolCall
from tui.app import ChatApp
from tui.chat.facts import Facts
from tui.chat.host import Failed
from tui.chat.media import Media, Sight
from tui.chat.turns import Turn
from tui.screens.preview import Canvas
from tui.vision.frames import Frame
from tui.vision.load import media_of
from tui.widgets.status import Status

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
        self.plan: dict[str, int] = {}

    def start(self) -> None: ...

    async def look(self, part: ImagePart | VideoPart) -> Seen:
        raise Gone("there is no engine")

    def close(self) -> None: ...


PLAN = {"process": 250 * 10**6, "trunk": 6_600_000_000, "keys and values of 32768 tokens": 1_200_000_000}


LAYERS = tuple(
    {"hit_rate": 1 - layer / 60, "bytes_read": layer * 7_000_000, "stall_seconds": layer / 50, "slots": 96}
    for layer in range(60)
)


async def _chat(app: ChatApp, pilot) -> None: ...


async def _failed(app: ChatApp, pilot) -> None:
    app.host.state = Failed("there is no model at /models/none: qwen35 download fetches one")  # type: ignore[misc]
    await _new(app, pilot)


async def _reading(app: ChatApp, pilot) -> Facts:
    """A long prompt is read."""
    app.talk.tree.put(Turn(10, 9, "user", "Read all of this."))
    app.talk.tree.put(turn := Turn(11, 10, "assistant", status="writing"))
    app.chat.transcript.show(app.talk.tree, turn)
    return Facts("prefill", 3000, 8000, 12, 0, 3000, 32768, 9 << 30, 12 << 30, "big · mlx", 0.87, (2.0, 3.5, 3.1), 3)


async def _thinking(app: ChatApp, pilot) -> Facts:
    """Thoughts come in, folded, with the newest words."""
    app.talk.tree.put(Turn(10, 9, "user", "Why?"))
    thoughts = "First the tens, then the ones, and is there a carry? " * 5
    app.talk.tree.put(turn := Turn(11, 10, "assistant", reasoning=thoughts, status="writing", seconds=4.2))
    app.chat.transcript.show(app.talk.tree, turn)
    return Facts("thinking", 0, 0, 4.2, 6.5, 30000, 32768, 11 << 30, 12 << 30, "big · mlx", 0.87, (2.0, 3.5, 3.1), 3)


async def _raw(app: ChatApp, pilot) -> None:
    app.chat.transcript.page.chosen = 3
    await pilot.press("shift+tab", "v")
    app.chat.transcript.reveal(3)


async def _layers(app: ChatApp, pilot) -> None:
    app.talk.layers = LAYERS
    app.host.plan = PLAN
    await pilot.press("f4", *["pagedown"] * 2)


async def _rename(app: ChatApp, pilot) -> None:
    await pilot.press("f2", "ctrl+r")


async def _system(app: ChatApp, pilot) -> None:
    app.preferences = replace(app.preferences, system="Be brief.")
    await pilot.press("f3", "end", "enter")


async def _steady(app: ChatApp, pilot) -> None:
    """No cursor that blinks."""
    await pilot.pause()
    for field in app.screen.query("Input, TextArea"):
        field.cursor_blink = False  # type: ignore[attr-defined]
        field._pause_blink()  # type: ignore[attr-defined]


def drawn(size: tuple[int, int], ground: str, shape: str) -> Media:
    """A picture with a shape on it."""
    image = Image.new("RGB", size, ground)
    ImageDraw.Draw(image).ellipse((size[0] // 4, size[1] // 4, size[0] * 3 // 4, size[1] * 3 // 4), fill=shape)
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return media_of(buffer.getvalue(), f"{shape} on {ground}.png")


async def _pictures(app: ChatApp, pilot) -> None:
    """A picture in the pane, and a clip with its frames."""
    app.chat.verbs.attach(drawn((640, 400), "navy", "orange"))
    frames = [Frame(second, drawn((160, 120), ground, "white")) for second, ground in ((0.5, "red"), (2.5, "green"))]
    seconds = tuple(frame.seconds for frame in frames)
    clip = Media("clip.mp4", "video", b"clip", (0, 0), sight=Sight((640, 480), (320, 256), 178, seconds))
    app.chat.pictures.learn(app.chat.pictures.add(clip), frames=tuple(frames))
    app.chat.composer.take("[Video #2] What is this?")
    while app.chat.pictures.media[0].sight is None:
        await pilot.pause(0.01)
    await pilot.pause()


async def _preview(app: ChatApp, pilot) -> None:
    app.chat.verbs.attach(drawn((640, 400), "navy", "orange"))
    await pilot.press("tab", "enter")
    while "tokens" not in str(app.screen.query_one("#about", Static).render()):
        await pilot.pause(0.01)


async def _browse(app: ChatApp, pilot) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "holidays").mkdir()
        for ground in ("navy", "white"):
            (folder / f"{ground}.png").write_bytes(drawn((320, 240), ground, "orange").data)
        app.chat.verbs.slash_browse(name)
        await pilot.press("down", "down")
        while app.screen.query_one(Canvas).media is None:
            await pilot.pause(0.01)
    app.screen.query_one("#frame").border_title = "/pictures"


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


SCREENS: dict[str, Callable[..., Awaitable[Facts | None]]] = {
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
    "failed": _failed,
    "reading": _reading,
    "thinking": _thinking,
    "raw": _raw,
    "layers": _layers,
    "rename": _rename,
    "system": _system,
    "pictures": _pictures,
    "preview": _preview,
    "browse": _browse,
    "palette": _key("ctrl+p"),
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
        facts = await SCREENS[name](app, pilot)
        await _steady(app, pilot)
        _ = app.chat.transcript.lines  # measures all, as the app does by and by: guesses would move the scroll bar
        app.chat.transcript._changed()
        for timer in list(app.chat._timers):  # the spinner stands still
            timer.stop()
        app.chat._tick = 0
        app.chat._poll()
        if facts is not None:
            app.chat.query_one(Status).tell(facts)
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
    for name in sys.argv[1:] or SCREENS:
        for size in SIZES:
            for theme in THEMES:
                golden(name, size, theme).write_text(asyncio.run(shoot(name, size, theme)))
