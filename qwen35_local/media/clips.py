"""Where frames of a clip come from: PyAV for video files, Pillow for animations. One is opened, used and closed."""

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

from PIL import Image

from ..errors import BackendUnavailable, MediaError
from .images import MOST_PIXELS, opened_picture, rgb

ANIMATIONS = (b"GIF8", b"\x89PNG", b"RIFF")
MOST_ANIMATED = 8_000_000_000  # pixels of all frames of an animation, which are decoded one after another: a minute
MOST_PACKETS = 20_000_000  # of a clip: 92 hours at 60 frames a second


@dataclass(frozen=True, slots=True)
class ClipInfo:
    """What a clip's container says, its frames counted: their number, how many a second, (width, height)."""

    frames: int
    fps: float
    size: tuple[int, int]


class Reader(Protocol):
    """An open clip."""

    @property
    def info(self) -> ClipInfo: ...

    def pictures(self, indices: Sequence[int]) -> Iterator[Image.Image]:
        """RGB pictures of the frames at these increasing indices."""
        ...


@contextmanager
def opened(data: bytes) -> Iterator[Reader]:
    """A reader of the clip in `data`. Raises MediaError, or BackendUnavailable without PyAV."""
    if data.startswith(ANIMATIONS) and data[8:12] != b"AVI ":
        with opened_picture(data) as image:
            yield Animation(image)
        return
    try:
        import av
        from av.error import FFmpegError
    except ImportError as error:
        raise BackendUnavailable("clips need PyAV: pip install 'qwen35-local[video]'") from error
    try:
        with av.open(io.BytesIO(data)) as container:
            yield VideoFile(container)
    except (FFmpegError, ValueError, OverflowError) as error:
        raise MediaError(f"the clip cannot be read ({getattr(error, 'strerror', None) or error})") from error


class VideoFile:
    """The first video track of a container. Frames are counted by their packets: headers lie, or do not say."""

    def __init__(self, container: Any):
        if not container.streams.video:
            raise MediaError("this file has no video track")
        self._container, self._stream = container, container.streams.video[0]
        context = self._stream.codec_context
        if context is None or not self._stream.width or not self._stream.height:
            raise MediaError("the video track is of a kind that cannot be decoded")
        width, height = self._stream.width, self._stream.height
        if width * height > MOST_PIXELS:
            raise MediaError(f"a clip of {width}x{height} pixels is too large: {MOST_PIXELS:,} is the most")
        context.thread_type = "AUTO"
        self._times: list[int] = []
        self._keys: list[int] = []
        for packet in container.demux(self._stream):
            time = packet.pts if packet.pts is not None else packet.dts
            if packet.size and time is not None and not packet.is_discard:
                self._times.append(time)
                if packet.is_keyframe:
                    self._keys.append(time)
                if len(self._times) > MOST_PACKETS:
                    raise MediaError(f"the clip has more than {MOST_PACKETS:,} frames")
        self._times.sort()
        self._keys.sort()
        if not self._times:
            raise MediaError("the video track has no frames")
        rate = self._stream.average_rate or self._stream.guessed_rate
        span = (self._times[-1] - self._times[0]) * (self._stream.time_base or 0)
        fps = float(rate) if rate else float(len(self._times) / span) if span else 1.0
        self.info = ClipInfo(len(self._times), fps, (width, height))

    def pictures(self, indices: Sequence[int]) -> Iterator[Image.Image]:
        """Decodes forward, and jumps to a key frame where that skips something."""
        frames: Iterator[Any] = iter(())
        at = None  # time of the last frame decoded
        last: Any = None
        for index in indices:
            wanted = self._times[index]
            if at == wanted:  # two indices may name frames of one time
                yield last.to_image()
                continue
            key = max((key for key in self._keys if key <= wanted), default=None)
            if at is None or (key is not None and key > at):
                frames, at = self._from(key if key is not None else self._times[0]), None
            for last in frames:
                at = last.pts if last.pts is not None else wanted
                if at >= wanted:
                    break
            else:
                raise MediaError(f"the clip is damaged: it ends before its frame {index + 1} of {self.info.frames}")
            yield last.to_image()

    def _from(self, time: int) -> Iterator[Any]:
        self._container.seek(time, stream=self._stream, backward=True)
        return self._container.decode(self._stream)


class Animation:
    """A GIF, APNG or WebP; its rate is that of its frames' mean duration."""

    def __init__(self, image: Image.Image):
        self._image = image
        count = getattr(image, "n_frames", 1)
        if image.width * image.height > MOST_PIXELS:
            raise MediaError(
                f"an animation of {image.width}x{image.height} pixels is too large: {MOST_PIXELS:,} is the most"
            )
        if count * image.width * image.height > MOST_ANIMATED:
            raise MediaError(
                f"an animation of {count} frames of {image.width}x{image.height} pixels is too long: {MOST_ANIMATED:,} "
                "pixels together are the most"
            )
        duration = 0.0  # milliseconds; a frame without one is shown for the usual 100
        for index in range(count):
            image.seek(index)
            duration += image.info.get("duration") or 100.0
        self.info = ClipInfo(count, 1000.0 * count / duration, image.size)

    def pictures(self, indices: Sequence[int]) -> Iterator[Image.Image]:
        for index in indices:
            self._image.seek(index)
            yield rgb(self._image)
