"""The miniature's generated pictures and clips: right answers, honest splits, patches in the processor's order."""

import io
import re
from importlib.util import find_spec
from random import Random

import numpy as np
import pytest
from PIL import Image, ImageSequence

from qwen35_local import miniature
from qwen35_local.engine import ImagePart, VideoPart
from qwen35_local.media.images import look
from qwen35_local.media.rules import read_rules
from qwen35_local.media.video import look as watch
from scripts.miniature.encode import encode
from scripts.miniature.families.drawing import PAINTS, SHAPES, Mark, draw_shapes
from scripts.miniature.families.pictures import SIGHTS, appears, colour, count, number, position, shape, sides, word
from scripts.miniature.mixture import with_mode
from scripts.miniature.pixels import patch_of, patches
from scripts.miniature.task import Task

fonts = pytest.mark.skipif(find_spec("matplotlib") is None, reason="words are drawn in matplotlib's fonts")
FAMILIES = [pytest.param(maker, marks=fonts if maker in (number, word) else ()) for maker in SIGHTS]


def media(task: Task) -> list[bytes]:
    return [part.data for part in task.messages[0].content if isinstance(part, ImagePart | VideoPart)]


def pixels(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"), dtype=int)


def asked(task: Task) -> str:
    return task.messages[0].text


def near(picture: np.ndarray, paint: str) -> np.ndarray:
    return np.abs(picture - np.array(PAINTS[paint])).max(-1) <= 14


@pytest.mark.parametrize("maker", FAMILIES)
def test_one_seed_draws_one_picture_and_no_picture_is_both_trained_and_held_out(maker):
    assert maker(Random(1)) == maker(Random(1))
    rng = Random(0)
    trained = {tuple(media(maker(rng))) for _ in range(60)}
    tested = {tuple(media(maker(rng, held_out=True))) for _ in range(20)}
    assert not trained & tested


@pytest.mark.parametrize("seed", range(8))
def test_the_colour_that_is_answered_is_in_the_picture(seed):
    task = colour(Random(seed))
    paint = re.fullmatch(r"The \w+ is (\w+)\.", task.reply[0].text)
    assert paint
    assert near(pixels(media(task)[0]), paint[1]).sum() > 100


@pytest.mark.parametrize("seed", range(8))
def test_the_corner_that_is_answered_holds_paint(seed):
    task = position(Random(seed))
    picture = pixels(media(task)[0])
    back = picture[0, 0]
    rows = slice(0, 48) if "top" in task.reply[0].text else slice(48, 96)
    columns = slice(0, 48) if "left" in task.reply[0].text else slice(48, 96)
    assert (np.abs(picture[rows, columns] - back).max(-1) > 40).sum() > 100


@pytest.mark.parametrize("seed", range(8))
def test_as_many_stretches_of_paint_as_are_counted(seed):
    task = count(Random(seed))
    picture = pixels(media(task)[0])
    marked = np.abs(picture - picture[0, 0]).max(-1) > 40
    found = 0
    while marked.any():  # flood one stretch after the other
        found += 1
        stack = [tuple(np.argwhere(marked)[0])]
        while stack:
            y, x = stack.pop()
            if 0 <= y < 96 and 0 <= x < 96 and marked[y, x]:
                marked[y, x] = False
                stack += [(y + 1, x), (y - 1, x), (y, x + 1), (y, x - 1)]
    assert f" {found} " in task.reply[0].text


@pytest.mark.parametrize("seed", range(12))
def test_the_side_that_is_answered_is_the_side_of_the_paint(seed):
    task = sides(Random(seed))
    left = []
    for data in media(task):
        picture = pixels(data)
        columns = np.argwhere(np.abs(picture - picture[0, 0]).max(-1) > 40)[:, 1]
        left.append(columns.mean() < 32)
    answer = task.reply[0].text
    if "side" in asked(task):
        assert answer == f"On the {'left' if left['second' in asked(task)] else 'right'}."
    else:
        assert left[0] != left[1]
        assert answer == f"In the {'first' if left[0] == ('left' in asked(task)) else 'second'} picture."


@pytest.mark.parametrize("seed", range(12))
def test_a_clip_shows_something_new_in_the_second_that_is_answered(seed):
    task = appears(Random(seed))
    frames = [
        np.asarray(frame.convert("RGB"), int)
        for frame in ImageSequence.Iterator(Image.open(io.BytesIO(media(task)[0])))
    ]
    assert len(frames) in (6, 8, 10, 12)
    before = np.broadcast_to(frames[0][-1, 0], frames[0].shape)
    new = []
    for index, frame in enumerate(frames):
        if (np.abs(frame - before).max(-1) > 40).sum() > 50:
            new.append(index // 2)
        before = frame
    assert int(task.reply[0].text.removeprefix("At second ").rstrip(".")) in new


def test_every_shape_is_drawn_around_its_place_and_no_two_alike():
    drawn = [draw_shapes(Random(0), (32, 32), [(Mark(kind, "black", 16, 16), 13)]).tobytes() for kind in SHAPES]
    assert len(set(drawn)) == len(SHAPES)


def test_shapes_are_asked_for_with_the_right_article():
    answers = {shape(Random(seed)).reply[0].text for seed in range(40)}
    assert answers == {f"It is a {kind}." for kind in SHAPES}


def test_patches_are_blocks_of_four_with_channel_and_frame_first():
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8))
    rows, grid = patches(image)
    assert grid == (4, 6)
    assert rows.shape == (24, 3 * 2 * 16 * 16)
    at = patch_of(x=16 * 3 + 5, y=16 * 2 + 9, grid=grid)
    assert at == 8 * 2 // 4 * 3 + 4 + 1  # second row of blocks, second block, its right upper patch
    cut = (np.asarray(image, np.float32)[32:48, 48:64] / 255 - 0.5) / 0.5
    np.testing.assert_allclose(rows[at].reshape(3, 2, 16, 16)[:, 0], cut.transpose(2, 0, 1), atol=1e-6)
    np.testing.assert_array_equal(rows[at].reshape(3, 2, 16, 16)[:, 0], rows[at].reshape(3, 2, 16, 16)[:, 1])


@pytest.mark.parametrize("maker", FAMILIES)
def test_a_row_has_a_token_for_every_merged_patch_and_positions_that_go_on_after_them(tokenizer, maker):
    item = encode(tokenizer, with_mode(maker(Random(2)), False))
    pads = [tokenizer.special["<|image_pad|>"], tokenizer.special["<|video_pad|>"]]
    places = np.flatnonzero(np.isin(item.ids, pads))
    assert len(places) == sum(len(values) for values, _ in item.seen) // 4
    assert not any(item.target[place] for place in places)
    assert item.positions is not None
    # Each picture takes the longer side of its merged grid in positions, however many tokens it has.
    saved = sum(len(values) // 4 - max(grid) // 2 for values, grid in item.seen)
    assert item.positions[:, -1].tolist() == [len(item.ids) - 1 - saved] * 3
    first = places[0]
    rows, columns = (side // 2 for side in item.seen[0][1])
    block = item.positions[:, first : first + rows * columns] - item.positions[0, first]
    assert block[0].max() == 0
    assert block[1].tolist() == [row for row in range(rows) for _ in range(columns)]
    assert block[2].tolist() == list(range(columns)) * rows


@pytest.mark.parametrize("maker", [colour, sides])
def test_pictures_are_trained_on_as_the_product_shows_them(maker):
    for data in media(maker(Random(3))):
        rules, _ = read_rules(miniature.path())
        shown = look(data, rules)
        rows, grid = patches(Image.open(io.BytesIO(data)))
        assert shown.grid == (1, *grid)
        np.testing.assert_allclose(shown.patches(), rows, atol=1e-6)


def test_clips_are_trained_on_as_the_product_shows_them(tokenizer):
    task = appears(Random(5))
    _, rules = read_rules(miniature.path())
    clip = watch(media(task)[0], rules)
    item = encode(tokenizer, with_mode(task, False))
    np.testing.assert_allclose(clip.patches(), np.concatenate([rows for rows, _ in item.seen]), atol=1e-6)
    text = tokenizer.decode(item.ids)
    assert re.findall(r"<([\d.]+) seconds>", text) == [f"{seconds:.1f}" for seconds in clip.seconds]
