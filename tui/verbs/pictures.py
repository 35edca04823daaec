"""Verbs of pictures: attach by path, paste, clipboard or browser; look at them."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from qwen35_local.errors import MediaError, Qwen35Error

from ..chat.media import Media, Sight
from ..screens.browse import BrowseScreen
from ..screens.preview import PreviewScreen
from ..vision.cost import price
from ..vision.frames import frames_at
from ..vision.load import from_clipboard, is_media, load, media_of
from ..vision.pasted import data_uri, media_paths
from ..widgets.composer import Composer
from ..widgets.pictures import Picked
from .group import Group

GUESSED = "by the released model's rules: a server does not tell its own"
MOST_TEXT = 2 << 20  # bytes of a text file that "@" puts into the question


class PictureVerbs(Group):
    def attach(self, media: Media) -> None:
        """Add a picture to the next question."""
        picked = self._screen.pictures.add(media)
        self._screen.composer.take(f"{picked.token} ")
        self._screen.run_worker(self._study(picked), exit_on_error=False)
        self._screen.warn_blind()

    async def _study(self, picked: Picked) -> None:
        """What the model is shown: by the released rules at once, by its own when it is loaded."""
        pictures, media = self._screen.pictures, picked.media
        try:
            sight = await asyncio.to_thread(price, media)
            pictures.learn(picked, sight)
            await self._decode(picked, sight)
        except Qwen35Error as error:
            pictures.learn(picked, trouble=str(error))
            return
        seen = await self._look(media)
        if seen is not None:
            pictures.learn(picked, seen)
            if seen.seconds != sight.seconds:
                await self._decode(picked, seen)
        elif self._sees:
            pictures.learn(picked, replace(sight, notice=sight.notice or GUESSED))

    @property
    def _sees(self) -> bool:
        info = self._screen.host.info
        return info is not None and info.vision

    async def _look(self, media: Media) -> Sight | None:
        """What the model itself sees; None if it is blind or at a server, which do not tell."""
        try:
            return Sight.of(await self._screen.host.look(media.part))
        except Qwen35Error:
            return None

    async def _decode(self, picked: Picked, sight: Sight) -> None:
        if sight.seconds:
            frames = await asyncio.to_thread(frames_at, picked.media, sight.seconds)
            self._app.painter.learn(picked.media, frames)
            self._screen.pictures.learn(picked, frames=frames)

    def witness(self, turn: int) -> None:
        """Keep what the model saw with the pictures of a turn that was sent."""
        if self._talk.tree[turn].media:
            self._screen.run_worker(self._witness(turn, self._talk.tree[turn].media), exit_on_error=False)

    async def _witness(self, turn: int, media: tuple[Media, ...]) -> None:
        seen: list[Media] = []
        for one in media:
            sight = await self._look(one)
            if sight is None and one.sight is None:
                try:
                    sight = await asyncio.to_thread(price, one)
                except Qwen35Error:
                    sight = None
            seen.append(replace(one, sight=sight or one.sight))
        if tuple(seen) != media:
            self._talk.saw(turn, tuple(seen))
            self._screen.redraw()

    def show_clips(self) -> None:
        """Decode the clips of this chat, beside everything else, so that the conversation shows their frames."""
        painter = self._app.painter
        new = [one for turn in self._talk.tree.path() for one in turn.media if one.kind == "video"]
        new = [one for one in new if not painter.knows(one)]
        for one in new:
            painter.learn(one, ())  # not twice, should it fail
        if new:
            self._screen.run_worker(self._show_clips(new), exit_on_error=False)

    async def _show_clips(self, clips: list[Media]) -> None:
        for clip in clips:
            try:
                sight = clip.sight or await asyncio.to_thread(price, clip)
                self._app.painter.learn(clip, await asyncio.to_thread(frames_at, clip, sight.seconds))
            except Qwen35Error:
                continue  # its name stays
        self._screen.transcript.repaint(self._app.palette)

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
