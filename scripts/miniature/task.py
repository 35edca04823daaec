"""What one training or test item is: a conversation, the reply that is right, and how the held-out part is chosen."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from itertools import count
from random import Random
from typing import Any

from qwen35_local.engine import Message


@dataclass(frozen=True, slots=True)
class Task:
    """`messages` end with a user or tool turn; `reply` is what follows: assistant turns, with tool turns between them.

    The reasoning of a reply is the thought; it is dropped where `thinking` is off.
    """

    family: str
    messages: tuple[Message, ...]
    reply: tuple[Message, ...]
    tools: tuple[Mapping[str, Any], ...] = ()
    thinking: bool = False


def ask(family: str, question: str, answer: str, thought: str) -> Task:
    """One question, one answer."""
    return Task(family, (Message("user", question),), (Message("assistant", answer, thought),))


def digest(key: str) -> int:
    """A stable 64-bit hash."""
    return int.from_bytes(blake2b(key.encode(), digest_size=8).digest(), "big")


def is_held_out(key: str) -> bool:
    """One key in ten is never trained on."""
    return digest(key) % 10 == 0


def until(rng: Random, draw: Callable[[Random], tuple[str, Task]], held_out: bool) -> Task:
    """Draw (key, value) pairs until the key is on the wanted side of the split."""
    while True:
        key, value = draw(rng)
        if is_held_out(key) == held_out:
            return value


def pick_phrasing(rng: Random, phrasings: int, key: str, held_out: bool) -> int:
    """Index of a phrasing: exactly one of them, chosen by the key, is held out for this key."""
    reserved = digest(key) % phrasings
    if held_out:
        return reserved
    index = rng.randrange(phrasings - 1)
    return index + (index >= reserved)


def stream(seed: int, start: int = 0) -> Iterator[Random]:
    """An endless row of independent generators, one per step."""
    for step in count(start):
        yield Random(f"{seed}/{step}")
