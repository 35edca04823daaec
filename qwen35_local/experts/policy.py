"""Which experts stay in memory. Pure: counters in, decisions out.

An expert's heat is its router logit, smoothed over tokens: the router says of every expert at every token how close it
came to being used, which foretells the next tokens better than the uses themselves (LRU, LFU) do. What is missing takes
the place of what is coldest, but only of what is colder than itself: the rest goes through scratch memory and is
forgotten, so that memory smaller than one token's demand still serves its hottest.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

KEEP = 0.7  # of the heat survives a token; 0.5 to 0.85 do about as well on every trace
MEMORY = 32  # tokens; what is older weighs less than 1e-5


@dataclass(frozen=True, slots=True)
class Admission:
    """`taken` are (expert, victim) pairs, victim -1 for a free slot; `passed` find no slot."""

    taken: tuple[tuple[int, int], ...]
    passed: tuple[int, ...]


def warm(heat: np.ndarray, logits: np.ndarray) -> None:
    """Tokens have been routed with these router logits [tokens, E]; heat [E] follows them, in place."""
    for row in logits[-MEMORY:]:
        heat *= KEEP
        heat += (1 - KEEP) * (row - row.max())


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
