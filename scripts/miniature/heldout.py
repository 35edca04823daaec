"""The held-out set: seeded, disjoint from training by hash, and how an answer is scored."""

from dataclasses import replace
from random import Random

from qwen35_local.engine import Message

from .families.arithmetic import arithmetic
from .families.context import extract_json, needle, recall
from .families.knowledge import fact, translation
from .families.pictures import SIGHTS
from .families.smalltalk import smalltalk
from .families.tools import tool_use
from .mixture import SYSTEMS, with_mode
from .task import Task

SEED = 397
NEEDLE_WORDS = (40, 80, 120, 240, 480, 960, 1500)  # about 2000 tokens at most


def held_out(count: int = 100, seed: int = SEED) -> list[Task]:
    """`count` tasks of every family and mode; a tenth of them under a system prompt."""
    tasks = []
    for maker in (arithmetic, fact, translation, recall, extract_json, smalltalk, tool_use):
        for thinking in (False, True):
            rng = Random(f"{seed}/{maker.__name__}/{thinking}")
            for index in range(count):
                task = with_mode(maker(rng, held_out=True), thinking)
                if index % 10 == 0:
                    task = replace(task, messages=(Message("system", rng.choice(SYSTEMS)), *task.messages))
                tasks.append(task)
    for thinking in (False, True):
        rng = Random(f"{seed}/needle/{thinking}")
        for index in range(count):
            words = NEEDLE_WORDS[index * len(NEEDLE_WORDS) // count]
            tasks.append(with_mode(needle(rng, held_out=True, words=words), thinking))
    return tasks


def held_out_sights(count: int = 100, seed: int = SEED) -> list[Task]:
    """`count` questions of every family about pictures and clips, in either mode."""
    tasks = []
    for maker in SIGHTS:
        for thinking in (False, True):
            rng = Random(f"{seed}/{maker.__name__}/{thinking}")
            tasks += [with_mode(maker(rng, held_out=True), thinking) for _ in range(count)]
    return tasks
