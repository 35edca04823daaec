"""Logits -> token, in plain numpy and seeded.

Order of operations (that of transformers; vLLM's but for min_p's place): logit_bias, repetition, frequency and presence
penalties, temperature, top_k, top_p, min_p, then one uniform number picks from what is left. Each truncation
renormalises what the one before has left; equals at the edge of top_k all stay. A vocabulary has 248,320 entries, so
nothing here copies or sorts all of them unless the distribution is so flat that it must.
"""

import math
import secrets
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from .engine import Sampling
from .errors import NumericError, SamplingError

Floats = npt.NDArray[np.floating[Any]]
Ids = npt.NDArray[np.int64]

# `largest` looks at the maximum of each block first: about sqrt(248320) of them.
BLOCK = 512


class Sampler:
    """Chooses the tokens of one answer and remembers them for the penalties. `seed` is drawn if none is given."""

    def __init__(self, sampling: Sampling, prompt_ids: Sequence[int], vocab: int):
        self._sampling = sampling
        self._vocab = vocab
        self.seed = secrets.randbits(53) if sampling.seed is None else sampling.seed
        # Any whole number is a seed; numpy wants one that is not negative.
        self._random = np.random.Generator(np.random.PCG64(self.seed % 2**128))
        bias = sampling.logit_bias or {}
        if unknown := [token for token in bias if not 0 <= token < vocab]:
            raise SamplingError(f"logit_bias names token {unknown[0]}, but the model has {vocab} tokens", "logit_bias")
        self._bias_ids = np.fromiter(bias, np.int64, len(bias))
        self._bias = np.fromiter(bias.values(), np.float32, len(bias))
        self._seen = np.zeros(vocab, bool)  # in the prompt or generated
        self._seen[np.asarray(prompt_ids, np.int64)] = True
        self._said = np.empty(256, np.int64)  # distinct generated tokens, the first `_distinct` of them
        self._distinct = 0
        self._counts = np.zeros(vocab, np.float32)  # how often each was generated
        self._penalised = bool(
            bias or sampling.repetition_penalty != 1 or sampling.presence_penalty or sampling.frequency_penalty
        )

    def __call__(self, logits: Floats) -> int:
        """The next token for `logits` [vocab]. Raises NumericError for NaN or infinity."""
        token = self._penalised_choice(logits) if self._penalised else self._choose(logits)
        if not self._counts[token]:
            if self._distinct == len(self._said):
                self._said = np.concatenate([self._said, self._said])
            self._said[self._distinct] = token
            self._distinct += 1
        self._counts[token] += 1
        self._seen[token] = True
        return token

    def _penalised_choice(self, logits: Floats) -> int:
        """Penalties are in `logits` for the time of the choice only."""
        scores = logits if logits.dtype == np.float32 and logits.flags.writeable else logits.astype(np.float32)
        undo = self._penalise(scores)
        try:
            return self._choose(scores)
        finally:
            for ids, before in reversed(undo):
                scores[ids] = before

    def _penalise(self, scores: Floats) -> list[tuple[Ids, Floats]]:
        """Apply bias and penalties in place, since they touch few of the scores; returns (ids, what was there)."""
        undo: list[tuple[Ids, Floats]] = []

        def change(ids: Ids, values: Floats) -> None:
            undo.append((ids, scores[ids]))
            scores[ids] = values

        if len(self._bias_ids):
            change(self._bias_ids, scores[self._bias_ids] + self._bias)
        if (repetition := self._sampling.repetition_penalty) != 1:
            ids = np.flatnonzero(self._seen)
            seen = scores[ids]
            change(ids, np.where(seen < 0, seen * repetition, seen / repetition))
        if self._distinct and (self._sampling.frequency_penalty or self._sampling.presence_penalty):
            ids = self._said[: self._distinct]
            penalty = self._sampling.frequency_penalty * self._counts[ids] + self._sampling.presence_penalty
            change(ids, scores[ids] - penalty)
        return undo

    def _choose(self, scores: Floats) -> int:
        if self._sampling.temperature == 0:
            token = int(scores.argmax())  # the first, so the lowest id, of equals; or of NaNs
            check(float(scores[token]), scores)
            return token
        ids, weights = self._distribution(scores)
        place = _pick(weights, self._random.random())
        return place if ids is None else int(ids[place])

    def _distribution(self, scores: Floats) -> tuple[Ids | None, Floats]:
        """(ids, weights) left by temperature and truncation, likeliest first; ids None for all, in their order."""
        rules = self._sampling
        maxima = _maxima(scores)
        best = float(maxima.max())
        check(best, scores)
        if 0 < rules.top_k < len(scores):
            ids = largest(scores, rules.top_k, maxima)
            weights = np.exp((scores[ids].astype(np.float64) - best) / rules.temperature)
            mass = weights.sum()
        else:
            ids = None
            weights = np.exp((scores - np.float32(best)) / np.float32(rules.temperature))
            mass = weights.sum(dtype=np.float64)
            if rules.top_p < 1:
                ids = _head(weights, rules.top_p * mass)
                weights = weights[ids].astype(np.float64)
        if rules.top_p < 1:
            # A token stays if those before it have not reached the mass, so the first always stays.
            kept = np.cumsum(weights) - weights < rules.top_p * mass
            ids, weights = ids[kept] if ids is not None else None, weights[kept]
        if rules.min_p > 0:
            kept = weights >= rules.min_p * weights.max()
            ids, weights = np.flatnonzero(kept) if ids is None else ids[kept], weights[kept]
        return ids, weights


def check(best: float, logits: Floats) -> None:
    """Raise NumericError unless `best`, the largest of `logits`, is finite; NaN counts as largest, -inf masks."""
    if math.isfinite(best):
        return
    if math.isnan(best):
        at = int(np.flatnonzero(np.isnan(logits))[0])
        raise NumericError(f"logits hold NaN at position {at} of {len(logits)}: the weights or the state are damaged")
    if best > 0:
        at = int(np.argmax(logits))
        raise NumericError(f"logits hold inf at position {at} of {len(logits)}: the weights or the state are damaged")
    raise NumericError(f"all {len(logits)} logits are -inf: no token can be chosen")


def _maxima(values: Floats) -> Floats:
    """The largest value of each whole block, then what is left of the values after them."""
    whole = len(values) // BLOCK * BLOCK
    return np.append(values[:whole].reshape(-1, BLOCK).max(axis=1, initial=-np.inf), values[whole:])


def largest(values: Floats, count: int, maxima: Floats | None = None) -> Ids:
    """Ids of the `count` largest values (and equals of the last), largest first, lower ids first; none of -inf.

    `maxima` are `_maxima(values)`, if they are known.
    """
    if count >= len(values):
        ids = np.flatnonzero(values > -np.inf)
    else:
        maxima = _maxima(values) if maxima is None else maxima
        # The count-th largest block maximum is a bound that at least `count` values reach.
        bound = np.partition(maxima, -count)[-count] if count <= len(maxima) else -np.inf
        if bound > -np.inf:
            blocks, whole = np.flatnonzero(maxima >= bound), len(values) // BLOCK
            inside = (blocks[blocks < whole, None] * BLOCK + np.arange(BLOCK)).ravel()
            ids = np.concatenate([inside, blocks[blocks >= whole] + whole * (BLOCK - 1)])
            ids = ids[values[ids] >= bound]
        else:
            ids = np.flatnonzero(values > -np.inf)
        if count < len(ids):
            ids = ids[values[ids] >= np.partition(values[ids], -count)[-count]]
    return ids[np.argsort(-values[ids], kind="stable")]


def logprobs(logits: Floats, token: int, top: int) -> tuple[float, list[tuple[int, float]]]:
    """(log-probability of `token`, the `top` likeliest as (id, log-probability)) by the raw logits [vocab]."""
    best = logits.max()
    total = float(best) + float(np.log(np.exp(logits - best).sum(dtype=np.float64)))
    likeliest = largest(logits, top)[:top] if top else []
    return float(logits[token]) - total, [(int(other), float(logits[other]) - total) for other in likeliest]


def _head(weights: Floats, mass: float) -> Ids:
    """Ids of the largest weights, as many as have `mass` together (or a few more)."""
    count = 256  # of real text hardly any nucleus is wider
    while True:
        ids = largest(weights, count)
        if count >= len(weights) or weights[ids].sum(dtype=np.float64) >= mass:
            return ids
        count *= 64


def _pick(weights: Floats, uniform: float) -> int:
    """The index where the running sum of `weights` passes `uniform` (in [0, 1)) of their total."""
    starts = np.arange(0, len(weights), BLOCK)
    blocks = np.cumsum(np.add.reduceat(weights, starts, dtype=np.float64))  # ten times faster than all running sums
    goal = uniform * blocks[-1]
    block = min(int(np.searchsorted(blocks, goal, side="right")), len(blocks) - 1)
    sums = np.cumsum(weights[starts[block] :][:BLOCK], dtype=np.float64)
    goal -= blocks[block - 1] if block else 0
    # Rounding may put the goal at the very end of the block: then its last token with any weight is meant.
    last = int(np.flatnonzero(sums < sums[-1])[-1]) + 1 if sums[0] < sums[-1] else 0
    return int(starts[block]) + min(int(np.searchsorted(sums, goal, side="right")), last)
