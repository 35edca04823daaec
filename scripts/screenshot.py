"""The pictures of the chat app in the README, made with the miniature: `python scripts/screenshot.py [FOLDER]`.

Nothing in them is staged: the answers are the model's own.
"""

import asyncio
import sys
from pathlib import Path

import qwen35_local
from tui.app import ChatApp
from tui.widgets.composer import Composer

FOLDER = Path(__file__).parent.parent / "tui" / "screenshots"
SCENE = Path(__file__).parent.parent / "docs" / "scene.png"  # by draw_scene.py
SIZE = (100, 30)


async def settled(app: ChatApp, pilot) -> None:
    await pilot.pause()
    while app.talk.busy or app.host.info is None:
        await pilot.pause(0.05)
    await pilot.pause(0.2)


async def say(app: ChatApp, pilot, text: str) -> None:
    app.chat.composer.post_message(Composer.Sent(text))
    await pilot.pause(0.1)
    await settled(app, pilot)


async def shoot(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    surest = {"sampling": {"temperature": 0.0}}
    app = ChatApp(lambda progress: qwen35_local.open("miniature", on_progress=progress), overrides=surest)
    async with app.run_test(size=SIZE) as pilot:

        async def keep(name: str) -> None:
            await pilot.pause(0.3)
            svg = app.export_screenshot(title="qwen35 chat")
            (folder / f"{name}.svg").write_text("\n".join(line.rstrip() for line in svg.splitlines()) + "\n")

        await settled(app, pilot)
        await say(app, pilot, "What is 17 + 25?")
        await pilot.press("ctrl+e")
        await say(app, pilot, "What is 38 - 21?")
        app.prefer(tools=True)
        await say(app, pilot, "Calculate 48 * 27.")
        await pilot.press("ctrl+t")
        await keep("chat")
        await pilot.press("ctrl+t")
        await pilot.press("ctrl+n")
        await say(app, pilot, "What is the capital of France?")
        await pilot.press("ctrl+o")
        await keep("chats")
        await pilot.press("escape")
        await pilot.press("ctrl+n")
        app.prefer(theme="qwen-light", tools=False)
        app.chat.verbs.slash_image(str(SCENE))
        await say(app, pilot, app.chat.composer.text + "What colour is the star?")
        app.chat.verbs.slash_image(str(SCENE))
        while app.chat.pictures.media[0].sight is None:
            await pilot.pause(0.05)
        await pilot.press(*"Where is the red circle?")
        await keep("pictures")


if __name__ == "__main__":
    asyncio.run(shoot(Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER))
