"""What the terminal app's tests share: an app under test and the hands that use it."""

import asyncio
import functools
import io
from collections.abc import Callable
from time import monotonic
from typing import Any

from PIL import Image
from textual.pilot import Pilot

from qwen35_local.backends.scripted import ScriptedEngine
from tui.app import ChatApp
from tui.widgets.composer import Composer

CALL = "<tool_call>\n<function=calculate>\n<parameter=a>\n6\n</parameter>\n<parameter=operation>\n*\n</parameter>\n" \
    "<parameter=b>\n7\n</parameter>\n</function>\n</tool_call>"  # fmt: skip


async def wait_until(pilot: Pilot, condition: Callable[[], Any], seconds: float = 30.0) -> None:
    """Let the app work until something is true."""
    end = monotonic() + seconds
    while not condition():
        assert monotonic() < end, "it did not happen in time"
        await pilot.pause(0.01)


class Driven:
    """An app under test and the hands that use it."""

    def __init__(self, app: ChatApp, pilot: Pilot, engines: list[ScriptedEngine]):
        self.app, self.pilot, self._engines = app, pilot, engines

    @property
    def engine(self) -> ScriptedEngine:
        return self._engines[-1]

    @property
    def text(self) -> str:
        return "\n".join(self.app.chat.transcript.lines)

    @property
    def screen(self) -> str:
        """All that can be seen, as text."""
        lines = self.app.screen._compositor.render_strips()
        return "\n".join("".join(segment.text for segment in line) for line in lines)

    def text_of(self, screen: type) -> list[str]:
        """All of what a window with one text shows, scrolled away or not."""
        assert isinstance(self.app.screen, screen)
        return str(self.app.screen.query_one("VerticalScroll > Static").render()).splitlines()

    @property
    def notice(self) -> str:
        return str(self.app.chat.query_one("#notice").render())

    async def press(self, *keys: str) -> None:
        await self.pilot.press(*keys)
        await self.pilot.pause()

    async def until(self, condition: Callable[[], Any], seconds: float = 30.0) -> None:
        await wait_until(self.pilot, condition, seconds)

    async def say(self, text: str, wait: bool = True) -> None:
        """Type (at once), send, and wait for the end of the answer."""
        composer = self.app.chat.composer
        composer.focus()
        composer.put(text)
        await self.pilot.pause()
        asked = len(self.app.talk.tree)
        composer.post_message(Composer.Sent(composer.expanded))
        await self.pilot.pause()
        if wait and not text.startswith("/"):
            await self.until(lambda: len(self.app.talk.tree) > asked and not self.app.talk.busy, 60)
            await self.pilot.pause()


def run(test):
    """An async test without a plugin."""

    @functools.wraps(test)
    def wrapped(*args, **kwargs):
        asyncio.run(test(*args, **kwargs))

    return wrapped


def png(size: tuple[int, int] = (8, 8)) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, "red").save(buffer, "PNG")
    return buffer.getvalue()
