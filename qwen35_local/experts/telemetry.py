"""What streaming did, in the numbers that explain a speed: hits, bytes, disk rate, and how long the model waited."""

from dataclasses import dataclass, fields
from typing import Any, Self


@dataclass(slots=True)
class LayerCounters:
    """Of one layer since the start: uses of experts by where they were found, and guesses read ahead."""

    hits: int = 0
    misses: int = 0
    joined: int = 0  # on their way already
    guessed: int = 0
    useful: int = 0  # of the guessed
    nbytes: int = 0
    stall: float = 0.0  # seconds that the model waited for reads

    def since(self, before: Self) -> dict[str, Any]:
        """As `Done.stats.extra["experts"]["layers"]` has it."""
        now = [getattr(self, f.name) - getattr(before, f.name) for f in fields(self)]
        hits, misses, joined, guessed, useful, nbytes, stall = now
        return {
            "hit_rate": _hit_rate(hits + joined, misses),
            "bytes_read": nbytes,
            "stall_seconds": round(stall, 4),
            "guesses": guessed,
            "guesses_used": useful,
        }


@dataclass(frozen=True, slots=True)
class Totals:
    """Counts since the start, of all layers. Seconds: `busy` with at least one read under way, `stall` with the model
    waiting for one. A use of an expert is a hit if it was in memory or on its way there when it was asked for."""

    hits: int = 0
    misses: int = 0
    guessed: int = 0
    useful: int = 0
    nbytes: int = 0
    busy: float = 0.0
    stall: float = 0.0
    retries: int = 0

    def __sub__(self, other: Self) -> Self:
        return type(self)(*(getattr(self, f.name) - getattr(other, f.name) for f in fields(self)))

    def report(self, seconds: float) -> dict[str, Any]:
        """As `Done.stats.extra["experts"]` has it, for an answer that took so many seconds."""
        return {
            "hit_rate": _hit_rate(self.hits, self.misses),
            "bytes_read": self.nbytes,
            "read_gbps": round(self.nbytes / self.busy / 1e9, 3) if self.busy else 0.0,
            "stall_share": round(self.stall / seconds, 4) if seconds else 0.0,
            "guesses": self.guessed,
            "guesses_used": self.useful,
            "read_retries": self.retries,
        }


def _hit_rate(hits: int, misses: int) -> float:
    return round(hits / (hits + misses), 4) if hits + misses else 1.0
