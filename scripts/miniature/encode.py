"""Tasks -> token ids with the places where the loss counts, by the product's own template and tokenizer."""

import io
from dataclasses import dataclass, field

import numpy as np
from PIL import Image, ImageSequence

from qwen35_local.chat.template import render
from qwen35_local.chat.tokenizer import Tokenizer
from qwen35_local.engine import ImagePart, TextPart, VideoPart

from .families.pictures import FRAME
from .pixels import FRAMES, MERGE, patches
from .task import Task, digest

Seen = tuple[np.ndarray, tuple[int, int]]  # patches of one picture (or pair of frames) and its grid


@dataclass(frozen=True, slots=True)
class Encoded:
    """`ids` of the whole conversation; `target[i]` says that ids[i] is written by the model.

    `seen` are its pictures in order, each over a run of pad tokens; `positions` [3, n] are given if there are any.
    """

    ids: list[int]
    target: list[bool]
    seen: list[Seen] = field(default_factory=list)
    positions: np.ndarray | None = None


def encode(tokenizer: Tokenizer, task: Task) -> Encoded:
    """Everything that the model itself writes, `<|im_end|>` included, is a target; the line end after it is not."""
    ids: list[int] = []
    target: list[bool] = []
    for index, message in enumerate(task.reply):
        if message.role != "assistant":
            continue
        before = [*task.messages, *task.reply[:index]]
        prompt = tokenizer.encode_segments(render(before, task.tools, task.thinking))
        whole = tokenizer.encode_segments(render([*before, message], task.tools, add_generation_prompt=False))
        whole = whole[: len(whole) - whole[::-1].index(tokenizer.special["<|im_end|>"])]
        if whole[: len(prompt)] != prompt or prompt[: len(ids)] != ids:
            raise ValueError(f"the prompt is not a prefix of the conversation: {task}")
        target += [False] * (len(prompt) - len(target)) + [True] * (len(whole) - len(prompt))
        ids = whole
    media = [
        p for m in task.messages if not isinstance(m.content, str) for p in m.content if not isinstance(p, TextPart)
    ]
    return with_media(tokenizer, Encoded(ids, target), media) if media else Encoded(ids, target)


def with_media(tokenizer: Tokenizer, item: Encoded, media: list[ImagePart | VideoPart]) -> Encoded:
    """Each pad token becomes as many as its picture has merged patches; a clip becomes a picture per pair of frames.

    The released processor of transformers 5 keeps the vision tokens around a clip, older ones did not: both occur.
    """
    image, video = (tokenizer.special[f"<|{kind}_pad|>"] for kind in ("image", "video"))
    start, end = (tokenizer.special[f"<|vision_{side}|>"] for side in ("start", "end"))
    ids: list[int] = []
    target: list[bool] = []
    seen: list[Seen] = []
    waiting = iter(media)
    skip = False
    for token, wanted in zip(item.ids, item.target, strict=True):
        if skip:
            skip = False
            continue
        piece = [token]
        if token == image:
            part = next(waiting)
            seen.append(patches(Image.open(io.BytesIO(part.data)).convert("RGB")))
            piece = [image] * merged(seen[-1])
        elif token == video:
            part = next(waiting)
            piece = []
            if digest(part.data.hex()) % 2:
                ids, target, skip = ids[:-1], target[:-1], True
            frames = [frame.convert("RGB") for frame in ImageSequence.Iterator(Image.open(io.BytesIO(part.data)))]
            for at in range(0, len(frames), FRAMES):
                first, second = frames[at], frames[min(at + 1, len(frames) - 1)]
                seen.append(patches(first, second))
                seconds = FRAME * (at + min(at + 1, len(frames) - 1)) / 2
                piece += [*tokenizer.encode(f"<{seconds:.1f} seconds>"), start, *[video] * merged(seen[-1]), end]
        ids += piece
        target += [wanted] * len(piece)
    return Encoded(ids, target, seen, positions(ids, {image, video}, seen))


def merged(seen: Seen) -> int:
    return len(seen[0]) // MERGE**2


def positions(ids: list[int], pads: set[int], seen: list[Seen]) -> np.ndarray:
    """[3, n] (t, h, w): text counts on; a picture at p spans p + row, p + column, and text goes on after the longer."""
    out = np.zeros((3, len(ids)), dtype=np.int64)
    at, place = 0, 0
    grids = iter(seen)
    while place < len(ids):
        if ids[place] not in pads:
            out[:, place] = at
            at, place = at + 1, place + 1
            continue
        gh, gw = (side // MERGE for side in next(grids)[1])
        rows, columns = np.divmod(np.arange(gh * gw), gw)
        out[:, place : place + gh * gw] = np.stack([np.zeros_like(rows), rows, columns]) + at
        at, place = at + max(gh, gw), place + gh * gw
    return out


def system_prefix(tokenizer: Tokenizer, ids: list[int]) -> int:
    """Length of the system turn that opens a conversation, its line end included."""
    return ids.index(tokenizer.special["<|im_end|>"]) + 2
