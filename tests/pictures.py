"""Pictures and clips for tests, drawn and encoded here."""

import io
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import numpy as np
from PIL import Image


def noise(size: tuple[int, int], mode: str = "RGB", seed: int = 0) -> Image.Image:
    """Random pixels: whatever is resampled or rounded differently shows."""
    width, height = size
    rng = np.random.default_rng([seed, width, height])
    if mode == "I;16":
        return Image.fromarray(rng.integers(0, 65536, (height, width)).astype(np.uint16))
    image = Image.fromarray(rng.integers(0, 256, (height, width, 4), dtype=np.uint8))
    if mode == "P":
        return image.convert("RGB").convert("P", palette=Image.Palette.ADAPTIVE, colors=64)
    return image.convert(mode)


def encoded(image: Image.Image, format: str = "PNG", turn: int | None = None, **options: Any) -> bytes:
    """The bytes of a file, with an EXIF orientation if `turn` is given."""
    if turn is not None:
        exif = Image.Exif()
        exif[0x112] = turn
        options["exif"] = exif
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def picture(size: tuple[int, int] = (96, 64), seed: int = 0) -> bytes:
    return encoded(noise(size, seed=seed))


def clip(
    frames: int = 9,
    fps: float = 10,
    size: tuple[int, int] = (96, 64),
    codec: str = "mpeg4",
    format: str = "mp4",
    times: Sequence[int] | None = None,
    b_frames: int = 0,
    seed: int = 0,
) -> bytes:
    """A clip whose frames all differ; `times` in milliseconds make its rate variable."""
    import av

    buffer = io.BytesIO()
    with av.open(buffer, "w", format=format) as container:
        stream: Any = container.add_stream(codec, rate=Fraction(fps).limit_denominator(1001))
        stream.width, stream.height = size
        stream.pix_fmt = "yuv420p"
        stream.codec_context.gop_size, stream.codec_context.max_b_frames = 12, b_frames
        if times is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        for number in range(frames):
            pixels = np.zeros((size[1], size[0], 3), np.uint8)
            pixels[..., 0] = (number * 23 + seed * 50) % 256
            pixels[:, : number * 7 % size[0]] = (0, 200, 50)
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            if times is not None:
                frame.pts, frame.time_base = times[number], Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return buffer.getvalue()


def sound() -> bytes:
    """A file with an audio track only."""
    import av

    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        stream: Any = container.add_stream("aac", rate=16000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 16000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return buffer.getvalue()


def bomb(side: int = 20000) -> bytes:
    """A PNG of 400 million pixels in 49 KB: black, one bit each."""
    import struct
    import zlib

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    rows = zlib.compressobj(9)
    data = rows.compress(bytes((side // 8 + 1) * side)) + rows.flush()
    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
