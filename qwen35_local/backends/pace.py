"""How many tokens to guess ahead: as many as pay, by what passes cost and how many guesses were right. Pure.

A pass over one token and d guesses yields 1 + a_1 + a_1 a_2 + ... tokens; a_i says how often guess i is right if those
before it were. With streamed experts a pass over more tokens reads the union of their experts: that is in its cost.
"""

from collections.abc import Sequence
from typing import Any

TRIES = 3  # passes of each depth before any is trusted
RETRY = 48  # passes after which another depth is tried again: acceptance differs between prose, code and calls
WEIGHT = 1 / 16  # of the newest measurement
MARGIN = 1.03  # what more guesses must gain; they cost heat even where they cost no time


class Pace:
    """Chooses a depth for each pass, 0 to `most`, and learns from it. With `fixed` it is always `most`."""

    def __init__(self, most: int, fixed: bool = False):
        self.most, self.fixed = most, fixed
        self.passes = self.drafted = self.accepted = 0
        self._seconds: list[float | None] = [None] * (most + 1)
        self._tried = [0] * (most + 1)
        self._right = [0.5] * most
        self._seen = [0] * most
        self._since = 0

    def depth(self) -> int:
        """For the next pass."""
        if self.fixed:
            return self.most
        # The first pass after a prompt warms caches up, so a depth counts after a few.
        untried = [depth for depth in range(self.most + 1) if self._tried[depth] < TRIES]
        if untried:
            return untried[0]
        best = self.best()
        if self._since >= RETRY:
            self._since = 0
            return best + 1 if best < self.most and self.passes // RETRY % 2 else max(best - 1, 0) if best else 1
        return best

    def best(self) -> int:
        """The depth that has been fastest per token."""
        chosen, least = 0, float("inf")
        for depth, seconds in enumerate(self._seconds):
            if seconds is not None and seconds / self.tokens(depth) * MARGIN ** (depth > chosen) < least:
                chosen, least = depth, seconds / self.tokens(depth)
        return chosen

    def tokens(self, depth: int) -> float:
        """Expected of a pass with so many guesses."""
        total = chance = 1.0
        for right in self._right[:depth]:
            chance *= right
            total += chance
        return total

    def passed(self, drafted: int, seconds: float) -> None:
        """A pass with so many guesses took so long."""
        self.passes += 1
        self.drafted += drafted
        self._since += 1
        self._tried[drafted] += 1
        before = self._seconds[drafted]
        if before is None or self._tried[drafted] <= TRIES:
            self._seconds[drafted] = seconds if before is None else min(before, seconds)
        else:
            self._seconds[drafted] = before + WEIGHT * (seconds - before)

    def judged(self, place: int, right: bool) -> None:
        """Guess number `place` (from 0) was right or wrong."""
        self.accepted += right
        self._seen[place] += 1
        # Plain average first, then a moving one.
        weight = max(WEIGHT, 1 / (self._seen[place] + 1))
        self._right[place] += weight * (right - self._right[place])

    def report(self) -> dict[str, Any]:
        """For statistics."""
        tokens = self.passes + self.accepted
        return {
            "passes": self.passes,
            "drafted": self.drafted,
            "accepted": self.accepted,
            "tokens_per_pass": round(tokens / self.passes, 3) if self.passes else 1.0,
            "acceptance": _rounded(self._right),
            "seconds_per_pass": _rounded([seconds or 0.0 for seconds in self._seconds], 6),
            "depth": self.most if self.fixed else self.best(),
        }


def _rounded(values: Sequence[float], digits: int = 3) -> list[float]:
    return [round(value, digits) for value in values]
