"""What is asked about pictures and clips; everything is drawn here, so every answer is known."""

import io
from collections.abc import Callable, Sequence
from random import Random

from PIL import Image

from qwen35_local.engine import ImagePart, Message, TextPart, VideoPart

from ..task import Task, until
from .drawing import FONTS, PAINTS, SHAPES, Mark, draw_shapes, draw_text, ground

SCENE, TEXT, SMALL = (96, 96), (128, 64), (64, 64)  # width, height
FRAME = 0.5  # seconds: the frame rate at which the released processor samples
# Words that are drawn: short, and each in every font but the ones held out for it.
WORDS = (
    "dog", "cat", "house", "water", "bread", "milk", "book", "sun", "moon", "tree", "fire", "fish", "bird", "red",
    "green", "blue", "white", "black", "day", "night", "one", "two", "three", "hello", "lamp", "chair", "table", "pen",
    "bag", "hat", "cup", "bike", "ball", "drum", "goat", "horse", "Paris", "Rome", "Oslo", "Lima", "Tokyo", "Cairo",
    "stop", "exit", "open", "car", "rent", "music",
)  # fmt: skip
NUMBERS = ("no", "one", "two", "three", "four", "five", "six")
LOOK, WATCH = "I look at the picture.", "I watch the clip."


def png(image: Image.Image) -> bytes:
    """A picture as a file, losslessly and fast."""
    out = io.BytesIO()
    image.save(out, "PNG", compress_level=1)
    return out.getvalue()


def clip(frames: Sequence[Image.Image]) -> bytes:
    """Frames as a file, losslessly: an animated PNG at two frames a second."""
    out = io.BytesIO()
    for frame in frames[1::2]:  # the encoder would merge equal frames, so every other one differs in a corner
        red, *others = frame.crop((0, 0, 1, 1)).tobytes()
        frame.putpixel((0, 0), (red - 1, *others))
    rest = list(frames[1:])
    frames[0].save(out, "PNG", save_all=True, append_images=rest, duration=int(FRAME * 1000), compress_level=1)
    return out.getvalue()


def _ask(family: str, parts: Sequence[ImagePart | VideoPart], question: str, answer: str, thought: str) -> Task:
    content = (*parts, TextPart(question))
    return Task(family, (Message("user", content),), (Message("assistant", answer, thought),))


def _a(kind: str) -> str:
    return f"{'an' if kind[0] in 'aeiou' else 'a'} {kind}"


def scatter(rng: Random, count: int, size: tuple[int, int] = SCENE) -> list[tuple[float, float, float]]:
    """Places (x, y, radius) of shapes that do not touch: one is large and anywhere, several share a 3 x 3 grid."""
    width, height = size
    if count == 1:
        r = rng.uniform(13, min(size) * 0.3)
        return [(rng.uniform(r + 1, width - r - 1), rng.uniform(r + 1, height - r - 1), r)]
    cells = rng.sample(range(9), count)
    places = []
    for cell in cells:
        x, y = (cell % 3 + 0.5) * width / 3, (cell // 3 + 0.5) * height / 3
        places.append((x + rng.uniform(-3, 3), y + rng.uniform(-3, 3), rng.uniform(10.5, 13)))
    return places


def scene(rng: Random, kinds: Sequence[str], paints: Sequence[str]) -> tuple[Image.Image, list[Mark]]:
    places = scatter(rng, len(kinds))
    marks = [Mark(kind, paint, x, y) for kind, paint, (x, y, _) in zip(kinds, paints, places, strict=True)]
    return draw_shapes(rng, SCENE, [(mark, r) for mark, (_, _, r) in zip(marks, places, strict=True)]), marks


def key_of(marks: Sequence[Mark], size: tuple[int, int] = SCENE) -> str:
    """What is where, to a ninth of the picture: this is what is held out."""
    cells = (f"{m.kind} {m.paint} {int(3 * m.x // size[0])}{int(3 * m.y // size[1])}" for m in marks)
    return "/".join(sorted(cells))


def colour(rng: Random, held_out: bool = False) -> Task:
    def draw(rng: Random) -> tuple[str, Task]:
        kinds = rng.sample(SHAPES, rng.choice((1, 1, 2, 3)))
        image, marks = scene(rng, kinds, rng.choices(list(PAINTS), k=len(kinds)))
        kind, paint = marks[0].kind, marks[0].paint
        said = "shape" if len(kinds) == 1 and rng.random() < 0.5 else kind
        question = rng.choice(
            ("What colour is the {k}?", "Which colour does the {k} have?", "Name the colour of the {k}.")
        )
        part = ImagePart(png(image))
        return key_of(marks), _ask("see colour", [part], question.format(k=said), f"The {said} is {paint}.", LOOK)

    return until(rng, draw, held_out)


def shape(rng: Random, held_out: bool = False) -> Task:
    def draw(rng: Random) -> tuple[str, Task]:
        paints = rng.sample(list(PAINTS), rng.choice((1, 1, 2, 3)))
        image, marks = scene(rng, rng.choices(SHAPES, k=len(paints)), paints)
        question = f"Which shape is {paints[0]}?"
        if len(paints) == 1:
            question = rng.choice(("What shape is this?", "Which shape do you see?", "Name the shape.", question))
        return key_of(marks), _ask("see shape", [ImagePart(png(image))], question, f"It is {_a(marks[0].kind)}.", LOOK)

    return until(rng, draw, held_out)


def count(rng: Random, held_out: bool = False) -> Task:
    def draw(rng: Random) -> tuple[str, Task]:
        n = rng.randint(1, 6)
        paints = rng.choices(list(PAINTS), k=n)
        if rng.random() < 0.3:
            paints = [paints[0]] * n
        image, marks = scene(rng, rng.choices(SHAPES, k=n), paints)
        question = rng.choice(("How many shapes are there?", "How many shapes do you see?", "Count the shapes."))
        answer = f"There {'is' if n == 1 else 'are'} {n} shape{'s' if n > 1 else ''}."
        return key_of(marks), _ask("see count", [ImagePart(png(image))], question, answer, LOOK)

    return until(rng, draw, held_out)


def position(rng: Random, held_out: bool = False) -> Task:
    """Shapes in the quarters of the picture."""

    def draw(rng: Random) -> tuple[str, Task]:
        n = rng.choice((1, 2, 3))
        kinds, paints = rng.sample(SHAPES, n), rng.choices(list(PAINTS), k=n)
        quarters = rng.sample(range(4), n)
        shapes = []
        for kind, paint, quarter in zip(kinds, paints, quarters, strict=True):
            x, y = (24 + 48 * (quarter % 2), 24 + 48 * (quarter // 2))
            mark = Mark(kind, paint, x + rng.uniform(-8, 8), y + rng.uniform(-8, 8))
            shapes.append((mark, rng.uniform(11, 15)))
        question = rng.choice(("Where is the {k}?", "Where do you see the {k}?", "In which corner is the {k}?"))
        said = rng.choice(("shape", kinds[0])) if n == 1 else rng.choice((kinds[0], f"{paints[0]} {kinds[0]}"))
        place = f"{('top', 'bottom')[quarters[0] // 2]} {('left', 'right')[quarters[0] % 2]}"
        image = draw_shapes(rng, SCENE, shapes)
        task = _ask("see position", [ImagePart(png(image))], question.format(k=said), f"At the {place}.", LOOK)
        return key_of([mark for mark, _ in shapes]), task

    return until(rng, draw, held_out)


def number(rng: Random, held_out: bool = False) -> Task:
    def draw(rng: Random) -> tuple[str, Task]:
        digits = rng.choice((1, 2, 3, 4))
        text = str(rng.randint(10 ** (digits - 1) if digits > 1 else 0, 10**digits - 1))
        face = rng.choice(FONTS)
        image, _ = draw_text(rng, TEXT, text, face)
        question = rng.choice(("What number is this?", "Which number do you see?", "Read the number."))
        key = text if digits > 1 else f"{text}/{face}"
        return key, _ask("see number", [ImagePart(png(image))], question, f"The number is {text}.", LOOK)

    return until(rng, draw, held_out)


def word(rng: Random, held_out: bool = False) -> Task:
    def draw(rng: Random) -> tuple[str, Task]:
        text, face = rng.choice(WORDS), rng.choice(FONTS)
        image, _ = draw_text(rng, TEXT, text, face)
        question = rng.choice(("What word is this?", "Which word do you see?", "Read the word."))
        return f"{text}/{face}", _ask("see word", [ImagePart(png(image))], question, f"The word is {text}.", LOOK)

    return until(rng, draw, held_out)


def _one(rng: Random, kind: str, paint: str, x: float) -> tuple[Image.Image, Mark]:
    mark = Mark(kind, paint, x, rng.uniform(18, 46))
    return draw_shapes(rng, SMALL, [(mark, rng.uniform(11, 15))]), mark


def sides(rng: Random, held_out: bool = False) -> Task:
    """Two pictures with one shape each, on the left or on the right."""

    def draw(rng: Random) -> tuple[str, Task]:
        kinds, paints = rng.choices(SHAPES, k=2), rng.choices(list(PAINTS), k=2)
        left = [rng.random() < 0.5 for _ in range(2)]
        compare = rng.random() < 0.5
        if compare:
            left[1] = not left[0]
        drawn = [_one(rng, k, p, rng.uniform(16, 24) if at else rng.uniform(40, 48))
                 for k, p, at in zip(kinds, paints, left, strict=True)]  # fmt: skip
        if compare:
            wanted = rng.random() < 0.5
            question = f"In which picture is the shape on the {'left' if wanted else 'right'}?"
            answer = f"In the {'first' if left[0] == wanted else 'second'} picture."
        else:
            which = rng.randrange(2)
            question = f"On which side is the shape in the {('first', 'second')[which]} picture?"
            answer = f"On the {'left' if left[which] else 'right'}."
        parts = [ImagePart(png(image)) for image, _ in drawn]
        key = " and ".join(key_of([mark], SMALL) for _, mark in drawn)
        return key, _ask("see sides", parts, question, answer, "I look at both pictures.")

    return until(rng, draw, held_out)


def appears(rng: Random, held_out: bool = False) -> Task:
    """A clip of 3 to 6 seconds in which a shape appears; sometimes another one does, at its own time."""

    def draw(rng: Random) -> tuple[str, Task]:
        seconds = rng.randint(3, 6)
        kinds, back = rng.sample(SHAPES, 2), ground(rng)
        two = rng.random() < 0.4
        spots = rng.sample(((18, 18), (46, 18), (18, 46), (46, 46)), 2) if two else ((32, 32), (32, 32))
        shapes = []
        for kind, (x, y) in zip(kinds, spots, strict=True):
            radius = rng.uniform(11, 14) if two else rng.uniform(13, 24)
            near = 2 if two else 6
            mark = Mark(kind, rng.choice(list(PAINTS)), x + rng.uniform(-near, near), y + rng.uniform(-near, near))
            shapes.append((mark, radius))
        at = [rng.randrange(2 * seconds), rng.randrange(2 * seconds)]  # frames
        present = [[shapes[0]] * (f >= at[0]) + [shapes[1]] * (two and f >= at[1]) for f in range(2 * seconds)]
        seed = rng.random()
        frames = [draw_shapes(Random(seed), SMALL, shown, back) for shown in present]  # a shade stays the same
        said = kinds[0] if two or rng.random() < 0.5 else "shape"
        question = rng.choice(("At which second does the {k} appear?", "When does the {k} appear?")).format(k=said)
        key = f"{key_of([mark for mark, _ in shapes[: 1 + two]], SMALL)} {at}"
        part = VideoPart(clip(frames))
        return key, _ask("see video", [part], question, f"At second {at[0] // 2}.", WATCH)

    return until(rng, draw, held_out)


SIGHTS: tuple[Callable[..., Task], ...] = (colour, shape, count, position, number, word, sides, appears)
