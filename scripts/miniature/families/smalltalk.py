"""Greetings, thanks, questions about itself, and "I don't know" for the rest of the world."""

from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from random import Random

from ..task import Task, ask, pick_phrasing
from .knowledge import loosen
from .pools import POOLS, name


@dataclass
class Talk:
    """What people say, and the one reply to all of it."""

    phrasings: list[str] = field(default_factory=list)
    thought: str = ""
    answer: str = ""


@cache
def talks() -> tuple[tuple[Talk, ...], Talk]:
    """The small talk, and what to say of things beyond it."""
    known: list[Talk] = []
    for line in (Path(__file__).parents[1] / "smalltalk.txt").read_text().splitlines():
        kind, _, text = line.partition(" ")
        if line.startswith("["):
            known.append(Talk())
        elif kind == "say":
            known[-1].phrasings.append(text)
        elif kind == "think":
            known[-1].thought = text
        elif kind == "answer":
            known[-1].answer = text
    return tuple(known[:-1]), known[-1]


def smalltalk(rng: Random, held_out: bool = False) -> Task:
    known, beyond = talks()
    if rng.random() < 0.4:
        subject = name(rng) if rng.random() < 0.25 else rng.choice(POOLS["subjects"])
        index = pick_phrasing(rng, len(beyond.phrasings), f"beyond/{subject}", held_out)
        question = loosen(rng, beyond.phrasings[index].format(x=subject), held_out)
        return ask("smalltalk", question, beyond.answer, beyond.thought)
    # The list of greetings is closed, so here nothing is held out: this part shows that they are known at all.
    talk = rng.choice(known)
    return ask("smalltalk", loosen(rng, rng.choice(talk.phrasings), held_out), talk.answer, talk.thought)
