"""The governor of guesses: off while the disk is busy, off for a while when too few are used, back on after."""

from types import SimpleNamespace
from typing import Any

import numpy as np

from qwen35_local.experts.bank import LayerBank
from qwen35_local.experts.layout import LayerLayout
from qwen35_local.experts.lookahead import REST, TRIAL, WORTH, Lookahead
from qwen35_local.experts.slots import Slots


class FakeBank:
    """Takes every guess; a share of them is used."""

    def __init__(self, useful: float):
        self.source: Any = SimpleNamespace(behind=0, counters=SimpleNamespace(guesses_used=0.0))
        self.useful, self.guessed = useful, 0

    def guess(self, experts: list[int], most: int) -> int:
        count = min(most, len(experts))
        self.guessed += count
        self.source.counters.guesses_used += count * self.useful
        return count


def asked(ahead: Lookahead, bank: Any, times: int) -> int:
    before = bank.guessed
    for _ in range(times):
        ahead.expect(bank, [1, 2, 3])
    return bank.guessed - before


def test_useful_guesses_go_on():
    assert asked(Lookahead(2), FakeBank(WORTH + 0.1), 1000) == 2000


def test_useless_guesses_stop_and_are_tried_again():
    ahead, bank = Lookahead(2), FakeBank(WORTH - 0.1)
    assert asked(ahead, bank, 1000) <= 2 * (TRIAL + 2)
    assert ahead.rest or asked(ahead, bank, 1)
    bank.useful = 1.0
    asked(ahead, bank, REST)
    assert asked(ahead, bank, 100) == 200


def test_a_saturated_disk_gets_no_guesses():
    ahead, bank = Lookahead(2), FakeBank(1.0)
    bank.source.behind = 1
    assert asked(ahead, bank, 50) == 0
    bank.source.behind = 0
    assert asked(ahead, bank, 50) == 100


def test_a_real_bank_that_guesses_wrong_is_left_alone(layout: LayerLayout, source):
    """Every guess is wrong: the experts guessed are never those asked for."""
    bank, ahead, rng = LayerBank(layout, Slots(layout.parts, 6), source), Lookahead(2), np.random.default_rng(0)
    scratch = Slots(layout.parts, 4)
    for _ in range(3 * TRIAL):
        used = sorted(rng.choice(8, 3, replace=False).tolist())
        bank.warm(np.where(np.isin(np.arange(16), used), 0.0, -5.0)[None])
        bank.finish(bank.commit(bank.plan(used), scratch))
        ahead.expect(bank, rng.permutation(np.arange(8, 16)).tolist())
        bank.drain()
    assert ahead.rest > 0
    assert bank.counters.guessed <= TRIAL + 2
    assert bank.counters.useful == 0
