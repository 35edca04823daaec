"""How a layer's experts are to be served, and what is on its way: the values that a bank plans and commits with."""

from dataclasses import dataclass

from .slots import Slots
from .source import Batch


@dataclass(frozen=True, slots=True)
class ExpertPlan:
    """How to serve distinct, ascending `experts`: in which slots they are (`hits`), under way already (`joined`), to
    be read into which slots (`misses`, after whom: `victims`, -1 for a free slot), or through scratch (`passed`)."""

    generation: int
    hits: tuple[tuple[int, int], ...]
    joined: tuple[tuple[int, int], ...]
    misses: tuple[tuple[int, int], ...]
    victims: tuple[int, ...]
    passed: tuple[int, ...]


@dataclass
class Guess:
    """An expert being read before it is known to be needed."""

    slot: int
    batch: Batch


@dataclass(frozen=True, slots=True)
class Flight:
    """An expert on its way into slot `slot` of `slots`, the bank's or scratch."""

    expert: int
    slots: Slots
    slot: int
    batch: Batch
