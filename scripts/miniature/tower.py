"""The tower's first lessons, without the text model: say for every patch what stands in it.

Far cheaper per picture than questions and answers; the merged features are also drawn towards the text embeddings of
what they show, so that the text model finds words where it looks.
"""

import json
import string
import time
from pathlib import Path
from random import Random

import torch  # pyright: ignore[reportMissingImports]
import torch.distributed as dist  # pyright: ignore[reportMissingImports]
import torch.nn.functional as F  # pyright: ignore[reportMissingImports]
from torch import Tensor, nn  # pyright: ignore[reportMissingImports]

from qwen35_local.chat.tokenizer import Tokenizer

from .families.drawing import FONTS, PAINTS, SHAPES, Mark, draw_shapes, draw_text
from .families.pictures import SMALL, TEXT, WORDS, scatter, scene
from .optim import Optimiser
from .pixels import patch_of, patches
from .torch_vision import Grid, Tower, VisionShape
from .train import average_gradients

KINDS = (*SHAPES, *string.digits, *string.ascii_letters)
COLOURS = tuple(PAINTS)
# Pictures of a worker's batch, at first and once shapes are known.
EACH = ({"scene": 24, "small": 12, "text": 40}, {"scene": 10, "small": 8, "text": 62})
SHAPES_KNOWN = 612  # steps


def text_to_draw(rng: Random) -> str:
    kind = rng.random()
    if kind < 0.5:
        return str(rng.randrange(10 ** rng.randint(1, 4)))
    if kind < 0.75:
        return rng.choice(WORDS)
    return "".join(rng.choice(string.ascii_lowercase) for _ in range(rng.randint(2, 5)))


def drawn(rng: Random, kind: str):
    """One picture of a kind, and what is in it."""
    if kind == "text":
        return draw_text(rng, TEXT, text_to_draw(rng), rng.choice(FONTS))
    paints = rng.choices(COLOURS, k=rng.randint(1, 6) if kind == "scene" else 1)
    kinds = rng.choices(SHAPES, k=len(paints))
    if kind == "scene":
        return scene(rng, kinds, paints)
    x, y, r = scatter(rng, 1, SMALL)[0]
    mark = Mark(kinds[0], paints[0], x, y)
    empty = rng.random() < 0.1
    return draw_shapes(rng, SMALL, [] if empty else [(mark, r)]), [] if empty else [mark]


def lesson(rng: Random, step: int) -> tuple[list[tuple[Tensor, Grid]], Tensor, Tensor]:
    """Stacks of pictures, and for each of their patches the number of its kind and of its paint (0: nothing)."""
    stacks, kinds, paints = [], [], []
    for name, count in EACH[step >= SHAPES_KNOWN].items():
        rows = []
        for _ in range(count):
            image, marks = drawn(rng, name)
            values, grid = patches(image)
            kind, paint = (torch.zeros(grid[0] * grid[1], dtype=torch.long) for _ in range(2))
            for mark in marks:
                at = patch_of(mark.x, mark.y, grid)
                kind[at] = 1 + KINDS.index(mark.kind)
                paint[at] = 1 + COLOURS.index(mark.paint) if mark.paint else 0
            rows.append((torch.from_numpy(values), grid))
            kinds.append(kind)
            paints.append(paint)
        stacks.append((torch.stack([values for values, _ in rows]), rows[0][1]))
    return stacks, torch.cat(kinds), torch.cat(paints)


class Student(nn.Module):
    """The tower with what is needed for its lessons: linear heads, and the frozen embeddings of words."""

    def __init__(self, shape: VisionShape, embeddings: Tensor, tokenizer: Tokenizer):
        super().__init__()
        self.visual = Tower(shape)
        self.kinds = nn.Linear(shape.out, shape.merge**2 * (1 + len(KINDS)))
        self.paints = nn.Linear(shape.out, shape.merge**2 * (1 + len(COLOURS)))
        words = [*(f" {kind}" for kind in SHAPES), *KINDS[len(SHAPES) :], *(f" {paint}" for paint in COLOURS)]
        first = embeddings[[tokenizer.encode(word)[0] for word in words]]
        self.register_buffer("words", F.normalize(first - first.mean(0), dim=-1))
        self.scale, self.bias = nn.Parameter(torch.tensor(3.0)), nn.Parameter(torch.full((len(words),), -4.0))

    def losses(self, stacks: list[tuple[Tensor, Grid]], kinds: Tensor, paints: Tensor) -> tuple[Tensor, dict]:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            seen = self.visual(stacks)
            guess = self.kinds(seen).float().view(-1, 1 + len(KINDS))
            paint = self.paints(seen).float().view(-1, 1 + len(COLOURS))
        weight = torch.ones(1 + len(KINDS))
        weight[0] = 0.15
        loss = F.cross_entropy(guess, kinds, weight=weight)
        with_paint = paints > 0
        loss = loss + F.cross_entropy(paint[with_paint], paints[with_paint])
        present = torch.zeros(len(seen), 1 + len(KINDS) + len(COLOURS))
        area = torch.arange(len(kinds)) // 4
        present[area, kinds] = 1
        present[area[with_paint], len(KINDS) + paints[with_paint]] = 1
        logits = seen.float() @ self.words.T * self.scale + self.bias
        presence = F.binary_cross_entropy_with_logits(logits, present[:, 1:], reduction="sum") / len(seen)
        shapes, letters = (kinds > 0) & (kinds <= len(SHAPES)), kinds > len(SHAPES)
        right = guess.argmax(-1) == kinds
        figures = {
            "loss": round(loss.item(), 4), "presence": round(presence.item(), 4),
            "shape": right[shapes].float().mean().item(), "letter": right[letters].float().mean().item(),
            "paint": (paint.argmax(-1) == paints)[with_paint].float().mean().item(),
        }  # fmt: skip
        return loss + 0.3 * presence, figures


@torch.no_grad()
def calibrated(student: Student, embeddings: Tensor, seed: int) -> Tower:
    """The tower with its last layer moved and scaled so that features are centred and as large as text embeddings."""
    features = student.visual(lesson(Random(f"{seed}/calibration"), SHAPES_KNOWN)[0])
    last = student.visual.merger.linear_fc2
    ratio = embeddings.square().mean().sqrt() / (features - features.mean(0)).square().mean().sqrt()
    last.bias.sub_(features.mean(0)).mul_(ratio)
    last.weight.mul_(ratio)
    return student.visual


def learn(student: Student, seed: int, steps: int, folder: Path) -> None:
    """Give `steps` lessons, resuming from `folder`; runs in every worker. The rate falls over the last 30 %."""
    optimiser, worker = Optimiser(student, muon_rate=0.01, adam_rate=2e-3), dist.get_rank()
    saved, step = folder / "tower.pt", 0
    if saved.exists():
        state = torch.load(saved)
        student.load_state_dict(state["student"])
        optimiser.load(state["optimiser"])
        step = state["step"]
    began, last_save = time.monotonic(), time.monotonic()
    recent: list[dict[str, float]] = []
    while step < steps:
        lessons = lesson(Random(f"{seed}/tower/{step}/{worker}"), step)
        loss, figures = student.losses(*lessons)
        optimiser.zero_grad()
        loss.backward()
        average_gradients(student)
        optimiser.step(min((step + 1) / 50, 1.0, 0.02 + 0.98 * (steps - step) / (0.3 * steps)))
        step += 1
        recent.append(figures)
        if step % 50 == 0 and worker == 0:
            mean = {key: round(sum(figures[key] for figures in recent) / len(recent), 4) for key in recent[0]}
            recent = []
            line = json.dumps({"minutes": round((time.monotonic() - began) / 60, 2), "step": step, **mean})
            print(line, flush=True)
            with (folder / "tower.jsonl").open("a") as file:
                file.write(line + "\n")
        if worker == 0 and (step == steps or time.monotonic() - last_save > 120):
            last_save = time.monotonic()
            state = {"student": student.state_dict(), "optimiser": optimiser.state(), "step": step}
            torch.save(state, saved.with_suffix(".new"))
            saved.with_suffix(".new").replace(saved)
