"""The app on a scripted engine: everything but the model is real."""

from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from driven import Driven
from PIL import Image

from qwen35_local.backends.scripted import Reply, ScriptedEngine
from qwen35_local.chat.tokenizer import Tokenizer
from tui.app import ChatApp
from tui.chat.host import Remember
from tui.render.blocks import parser

parser()  # compiled once, so that the first test is not the slow one


@pytest.fixture
def drive(tokenizer: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """`async with drive(replies) as driven`; `engine` options go to the scripted engine."""
    monkeypatch.chdir(tmp_path)

    @asynccontextmanager
    async def driving(
        replies: Iterable[Reply] = (),
        size: tuple[int, int] = (80, 24),
        data: Path | None = None,
        vision: bool = False,
        open_engine: Callable[..., Any] | None = None,
        overrides: dict[str, Any] | None = None,
        remember: Remember | None = None,
        **engine: Any,
    ) -> AsyncIterator[Driven]:
        engines: list[ScriptedEngine] = []

        def opening(on_progress):
            made = ScriptedEngine(tokenizer, replies, **engine)
            made.info = replace(made.info, vision=vision)
            engines.append(made)
            return made

        app = ChatApp(open_engine or opening, data, {"thinking": False, **(overrides or {})}, remember=remember)
        async with app.run_test(size=size) as pilot:
            await pilot.pause()
            driven = Driven(app, pilot, engines)
            if open_engine is None:
                await driven.until(lambda: app.host.info is not None)
            yield driven

    return driving


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "a sun.png"
    Image.new("RGB", (64, 48), "#f0b030").save(path)
    return path
