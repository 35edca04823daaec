"""Reading ahead: what the next layer's router makes of the current residual is mostly right, and its reads can begin
while this layer computes. Worth it only while the disk has slack, the guesses are used, and tokens come sooner for
them: a governor sees to all three."""

from collections.abc import Callable, Sequence
from statistics import median
from time import perf_counter

from .bank import LayerBank

MOST = 2  # guesses under way per layer; published sweeps peak here
TRIAL = 16  # tokens with guesses, and as many without in turns: what is around them is the same for both
GAIN = 1.02  # what guesses must gain: they cost heat even where they cost no time
HOLDS = 256  # tokens for which a verdict holds
ENOUGH = 64  # guesses after which their use is judged
WORTH = 0.5  # the least share of guesses that must be used


class Lookahead:
    """The governor of one model's guesses. `clock` (seconds) is a seam."""

    def __init__(self, most: int = MOST, clock: Callable[[], float] = perf_counter):
        self.most, self._clock = most, clock
        self._guessing = True
        self._left = 0  # tokens for which the verdict still holds; 0 during a trial
        self._times: dict[bool, list[float]] = {True: [], False: []}
        self._began: float | None = None
        self._asked: set[int] = set()  # banks of the present token
        self._issued = self._used_before = 0

    def wanted(self, bank: LayerBank) -> bool:
        """Whether to guess what this token will need of `bank`: a guess costs a router even if nothing is read. Asked
        once a token; the second time it is the next token."""
        if id(bank) in self._asked:
            self._next_token()
        self._asked.add(id(bank))
        return self._guessing

    def expect(self, bank: LayerBank, experts: Sequence[int]) -> None:
        """These experts may be needed of `bank` soon: begin to read some of those that are missing."""
        if bank.source.behind:  # those of the layer before have not even begun
            return
        self._issued += bank.guess(experts, self.most)
        if self._issued >= ENOUGH:
            used = bank.source.counters.guesses_used
            if used - self._used_before < WORTH * self._issued:
                self._decide(False)
            self._issued, self._used_before = 0, used

    def _next_token(self) -> None:
        now = self._clock()
        if self._began is not None:
            self._times[self._guessing].append(now - self._began)
        self._began = now
        self._asked.clear()
        if self._left:
            self._left -= 1
            if not self._left:
                self._times = {True: [], False: []}
        elif all(len(times) >= TRIAL for times in self._times.values()):
            # Medians: an answer that ended, or a prompt, makes one token of the trial long.
            self._decide(median(self._times[True]) * GAIN < median(self._times[False]))
        else:
            self._guessing = not self._guessing

    def _decide(self, guessing: bool) -> None:
        self._guessing, self._left = guessing, HOLDS
