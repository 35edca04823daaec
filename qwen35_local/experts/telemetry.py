"""What streaming did, in the numbers that explain a speed: hits, bytes, disk rate, and how long the model waited."""

from dataclasses import dataclass, fields
from typing import Any, Self


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
        uses = self.hits + self.misses
        return {
            "hit_rate": round(self.hits / uses, 4) if uses else 1.0,
            "bytes_read": self.nbytes,
            "read_gbps": round(self.nbytes / self.busy / 1e9, 3) if self.busy else 0.0,
            "stall_share": round(self.stall / seconds, 4) if seconds else 0.0,
            "guesses": self.guessed,
            "guesses_used": self.useful,
            "read_retries": self.retries,
        }
