"""Verbs of pictures: attach by path, paste, clipboard or browser; look at them."""

import asyncio
from collections.abc import Callable
from pathlib import Path

from qwen35_local.errors import MediaError, Qwen35Error

from ..chat.turns import Media
from ..screens.browse import BrowseScreen
from ..screens.preview import PreviewScreen
from ..vision.cost import Sight, price
from ..vision.frames import frames_at
from ..vision.load import from_clipboard, is_media, load, media_of
from ..vision.pasted import data_uri, media_paths
from ..widgets.composer import Composer
from .group import Group

MOST_TEXT = 2 << 20  # bytes of a text file that "@" puts into the question


class PictureVerbs(Group):
    def attach(self, media: Media) -> None:
        """Add a picture to the next question."""
        picked = self._screen.pictures.add(media)
        self._screen.composer.take(f"{picked.token} ")
        self.study(media)
        self._screen.warn_blind()

    def study(self, media: Media) -> None:
        """Find out, beside everything else, what the model is shown of a picture."""
        self._screen.run_worker(self._study(media), exit_on_error=False)

    async def _study(self, media: Media) -> None:
        """By the released rules at once, then by those of the model when it is loaded, if they differ."""
        pictures = self._screen.pictures
        try:
            sight = await asyncio.to_thread(price, media)
            pictures.learn(media, sight=sight)
            await self._decode(media, sight)
        except Qwen35Error as error:
            pictures.learn(media, trouble=str(error))
            return
        try:
            seen = Sight.of(await self._screen.host.look(media.part))
        except Qwen35Error:
            return  # a blind model, or a server: the pane says so itself
        pictures.learn(media, sight=seen)
        if seen.seconds != sight.seconds:
            await self._decode(media, seen)

    async def _decode(self, media: Media, sight: Sight) -> None:
        if sight.seconds:
            frames = await asyncio.to_thread(frames_at, media, sight.seconds)
            self._screen.pictures.learn(media, frames=frames)

    def attach_paths(self, paths: list[Path]) -> None:
        for path in paths:
            self._tried(lambda path=path: self.attach(load(path)))

    def pasted(self, composer: Composer, text: str) -> None:
        """A data URI or paths of pictures become pictures, everything else is text."""

        def attach() -> None:
            data = data_uri(text)
            if data is not None:
                self.attach(media_of(data, "pasted"))
            elif paths := media_paths(text):
                self.attach_paths(paths)
            else:
                composer.take(text)

        self._tried(attach)

    def file(self, path: Path) -> bool:
        """Take a file that was completed with "@": pictures are attached, texts put in; False leaves its name."""
        if is_media(path):
            self.attach_paths([path])
            return True
        try:
            if not path.is_file() or path.stat().st_size > MOST_TEXT:
                return False
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):
            return False
        self._screen.composer.take(f"{path.name}:\n\n{text}\n")
        return True

    def on_pictures(self, turn: int, detail: str = "") -> None:
        media = next((t.media for t in reversed(self._talk.tree.path(turn)) if t.media), ())
        if media:
            self._app.push_screen(PreviewScreen(media, self._app.palette))
        else:
            self._screen.say("there is no picture up to this message")

    def slash_image(self, argument: str) -> None:
        paths = media_paths(argument) or [Path(argument).expanduser()]
        if argument:
            self.attach_paths(paths)
        else:
            self.slash_browse("")

    def slash_browse(self, argument: str) -> None:
        def chosen(path: Path | None) -> None:
            if path is not None:
                self.attach_paths([path])

        folder = Path(argument).expanduser() if argument else Path.cwd()
        self._app.push_screen(BrowseScreen(folder, self._app.palette), chosen)

    def slash_clipboard(self, argument: str) -> None:
        def attach() -> None:
            for media in from_clipboard():
                self.attach(media)

        self._tried(attach)

    def _tried(self, action: Callable[[], None]) -> None:
        try:
            action()
        except MediaError as error:
            self._screen.say(str(error))
