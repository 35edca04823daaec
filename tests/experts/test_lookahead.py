"""The governor of guesses: off while the disk is busy, for a while off when they cost time or are not used."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from qwen35_local.experts.bank import LayerBank
from qwen35_local.experts.layout import LayerLayout
from qwen35_local.experts.lookahead import ENOUGH, HOLDS, TRIAL, WORTH, Lookahead
from qwen35_local.experts.slots import Slots


class Machine:
    """Four layers' banks that take every guess, a share of which is used, and a clock: a token takes a second, and
    `cost` more if any was guessed in it."""

    def __init__(self, cost: float = -0.1, useful: float = 1.0):
        self.cost, self.useful = cost, useful
        self.now, self.guessed = 0.0, 0
        source: Any = SimpleNamespace(behind=0, counters=SimpleNamespace(guesses_used=0.0))
        self.source = source
        self.banks: list[Any] = [SimpleNamespace(source=source, guess=self.guess) for _ in range(4)]
        self.ahead = Lookahead(2, clock=lambda: self.now)

    def guess(self, experts: list[int], most: int) -> int:
        count = min(most, len(experts))
        self.guessed += count
        self.source.counters.guesses_used += count * self.useful
        return count

    def tokens(self, count: int, slow: float = 0.0) -> int:
        """The tokens, of `count`, in which anything was guessed."""
        those = 0
        for number in range(count):
            before = self.guessed
            for bank in self.banks:
                if self.ahead.wanted(bank):
                    self.ahead.expect(bank, [1, 2, 3])
            guessed = self.guessed > before
            those += guessed
            # Now and then a token takes long for other reasons.
            self.now += 1 + self.cost * guessed + (slow if number % 5 == 0 else 0.0)
        return those


@pytest.mark.parametrize("slow", [0.0, 7.0])
def test_guesses_that_save_time_go_on(slow):
    machine = Machine(cost=-0.1)
    assert machine.tokens(2 * TRIAL + 2, slow) <= TRIAL + 2, "a trial takes turns"
    assert machine.tokens(HOLDS - 1, slow) == HOLDS - 1
    assert machine.tokens(2 * TRIAL, slow) <= TRIAL + 1, "and another trial"


@pytest.mark.parametrize("slow", [0.0, 7.0])
@pytest.mark.parametrize("cost", [0.1, 0.0])
def test_guesses_that_save_none_stop_and_are_tried_again(cost, slow):
    machine = Machine(cost)
    machine.tokens(2 * TRIAL + 2, slow)
    assert machine.tokens(HOLDS - 1, slow) == 0
    machine.cost = -0.1
    assert 0 < machine.tokens(2 * TRIAL + 2, slow) <= TRIAL + 2
    assert machine.tokens(HOLDS - 1, slow) == HOLDS - 1


def test_useless_guesses_stop_without_a_trial_of_time():
    machine = Machine(cost=-0.1, useful=WORTH - 0.1)
    machine.tokens(HOLDS)
    assert machine.guessed <= ENOUGH + 2


def test_a_saturated_disk_gets_no_guesses():
    machine = Machine()
    machine.source.behind = 1
    assert machine.tokens(50) == 0


def test_a_real_bank_that_guesses_wrong_is_left_alone(layout: LayerLayout, source):
    """Every guess is wrong: the experts guessed are never those asked for."""
    bank, ahead, rng = LayerBank(layout, Slots(layout.parts, 6), source), Lookahead(2), np.random.default_rng(0)
    scratch = Slots(layout.parts, 4)
    for _ in range(3 * ENOUGH):
        used = sorted(rng.choice(8, 3, replace=False).tolist())
        bank.warm(np.where(np.isin(np.arange(16), used), 0.0, -5.0)[None])
        if ahead.wanted(bank):
            ahead.expect(bank, rng.permutation(np.arange(8, 16)).tolist())
        bank.finish(bank.commit(bank.plan(used), scratch))
        bank.drain()
    assert not ahead.wanted(bank)
    assert bank.counters.guessed <= ENOUGH + 2
    assert bank.counters.useful == 0
