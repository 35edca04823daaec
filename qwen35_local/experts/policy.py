"""Which experts stay in memory. Pure: counters in, decisions out.

An expert's heat is the number of its uses, each fading by `DECAY` a step: between the extremes "used last" (LRU) and
"used most" (LFU). What is missing takes the place of what is coldest, but only of what is colder than itself: the rest
goes through scratch memory and is forgotten, so that memory smaller than one token's demand still serves its hottest.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

DECAY = 0.97


@dataclass(frozen=True, slots=True)
class Admission:
    """`taken` are (expert, victim) pairs, victim -1 for a free slot; `passed` find no slot."""

    taken: tuple[tuple[int, int], ...]
    passed: tuple[int, ...]


def warm(
    heat: np.ndarray, experts: Sequence[int] | np.ndarray, counts: np.ndarray | None = None, steps: int = 1
) -> None:
    """All heat [E] fades, the used experts gain, in place: one each, or for `steps` tokens at once what `counts` [n]
    uses spread evenly over them would leave."""
    fade = DECAY**steps
    heat *= fade
    heat[experts] += 1.0 if counts is None else counts * ((1 - fade) / (steps * (1 - DECAY)))


def admit(heat: np.ndarray, cached: np.ndarray, busy: np.ndarray, missing: Sequence[int], free: int) -> Admission:
    """Who of `missing` gets a slot. heat float64 [E]; cached and busy bool [E]: busy experts are never victims."""
    wanted = sorted(missing, key=lambda e: (-heat[e], e))
    taken = [(e, -1) for e in wanted[:free]]
    wanted = wanted[free:]
    candidates = np.flatnonzero(cached & ~busy)
    victims = candidates[np.argsort(heat[candidates], kind="stable")][: len(wanted)]
    n = 0
    while n < min(len(wanted), len(victims)) and heat[victims[n]] < heat[wanted[n]]:
        taken.append((wanted[n], int(victims[n])))
        n += 1
    return Admission(tuple(taken), tuple(sorted(wanted[n:])))
