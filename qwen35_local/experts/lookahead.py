"""Reading ahead: what the next layer's router makes of the current residual is mostly right, and its reads can begin
while this layer computes. Worth it only while the disk has slack and the guesses are used; a governor sees to both."""

from collections.abc import Sequence

from .bank import LayerBank

MOST = 2  # guesses under way per layer; published sweeps peak here
TRIAL = 64  # guesses after which the governor judges
WORTH = 0.5  # the least share of guesses that must be used
REST = 512  # calls for which a failed trial switches lookahead off


class Lookahead:
    """The governor of one model's guesses."""

    def __init__(self, most: int = MOST):
        self.most = most
        self.rest = 0  # calls left to sit out
        self._issued = self._used_before = 0

    def expect(self, bank: LayerBank, experts: Sequence[int]) -> None:
        """These experts may be needed of `bank` soon: begin to read some of those that are missing."""
        if self.rest:
            self.rest -= 1
            return
        if bank.source.behind:  # those of the layer before have not even begun
            return
        self._issued += bank.guess(experts, self.most)
        if self._issued >= TRIAL:
            used = bank.source.counters.guesses_used
            if used - self._used_before < WORTH * self._issued:
                self.rest = REST
            self._issued, self._used_before = 0, used
