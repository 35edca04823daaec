"""Speculation with the model's own MTP head, inside a session: tokens are computed before they are chosen.

The head guesses, one pass of the trunk computes the logits after the last token and after each guess, and whoever
chooses tokens goes on as ever. If the token chosen is the one guessed, its logits are there already; if not, the state
goes back to where it was right. Every token is chosen from the trunk's logits for exactly the tokens before it, so
greedy answers stay the same and sampled ones keep their distribution, whatever the sampler does.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from time import perf_counter

import mlx.core as mx
import numpy as np

from ..model.qwen35 import Qwen35, drained
from ..model.state import State
from .pace import Pace


@dataclass
class _Pass:
    """One pass: the guesses [1, d], logits [1 + d, V] and hidden states [1, 1 + d, H] after each of its tokens."""

    start: int  # tokens before it
    guesses: mx.array
    logits: mx.array
    hidden: mx.array
    read: list[int] | None = None  # the guesses, once computed


class Ahead:
    """The speculating half of a session on `model`. `seconds` of a pass are those that somebody waits for it."""

    def __init__(self, model: Qwen35, pace: Pace):
        self._model = model
        self.pace = pace
        self._pass: _Pass | None = None
        self._taken = 0  # guesses of the pass that came true
        self._waited = 0.0

    def knows(self, token: int, state: State) -> mx.array | None:
        """The logits [V] after `token`, if it was guessed; then `state` is one token further."""
        if (made := self._pass) is None or made.read is None or self._taken == len(made.read):
            return None
        right = made.read[self._taken] == token
        self.pace.judged(self._taken, right)
        if not right:
            return None
        self._taken += 1
        state.back_to(made.start + 1 + self._taken, made.start)
        state.tail = made.hidden[:, : 1 + self._taken]
        return made.logits[self._taken]

    def advance(self, ids: Sequence[int], state: State) -> mx.array:
        """Compute the last of `ids`, and what may follow; the logits [V] after it. `state` has all the others."""
        self.drop(state)
        began = perf_counter()
        depth, start = self.pace.depth(), state.tokens
        tokens = mx.array([[ids[-1]]], dtype=mx.int32)
        guesses = mx.zeros((1, 0), dtype=mx.int32)
        if depth:
            guesses = self._model.draft(state, ids, depth)
            tokens = mx.concatenate([tokens, guesses], axis=1)
            state.record()
        blocks, _ = drained(self._model.run(tokens, state))
        hidden = self._model.norm(blocks[0])
        made = _Pass(start, guesses, self._model.logits(hidden)[0], hidden)
        if depth:
            state.back_to(start + 1, start)
            state.tail = hidden[:, :1]
        else:
            assert state.tail is not None
            state.tail = mx.concatenate([state.tail, hidden], axis=1)
        self._pass, self._taken = made, 0
        mx.async_eval(made.logits, guesses, *state.arrays)
        self._waited = perf_counter() - began
        return made.logits[0]

    def read(self, logits: mx.array) -> np.ndarray:
        """`logits` as numpy; the first of a pass wait for it."""
        made = self._pass
        if made is None or made.read is not None:
            return np.array(logits)
        began = perf_counter()
        values = np.array(logits)
        made.read = [int(token) for token in np.array(made.guesses)[0]]
        self.pace.passed(len(made.read), self._waited + perf_counter() - began)
        return values

    def drop(self, state: State) -> None:
        """Forget the guesses that did not come true; `state` is where the chosen tokens left it."""
        if self._pass is not None:
            self._pass = None
            state.forget_trail()
