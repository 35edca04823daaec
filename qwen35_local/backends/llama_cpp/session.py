"""One timeline in llama.cpp. The KV cache can be cut back anywhere, the recurrent state only to a checkpoint."""

import resource
import sys
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...engine import Reuse
from ..prefix import Landmarks, common_prefix, longest, places, survivors
from .handle import Context, check_tokens
from .plan import CHECKPOINTS

CHUNK = 512  # tokens between two reports and two chances to cancel


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The recurrent state after `tokens` tokens."""

    tokens: int
    state: Any


class LlamaSession:
    """Keeps checkpoints where prompts part from one another (see `prefix.py`)."""

    def __init__(self, context: Context, landmarks: Landmarks, chunk: int = CHUNK):
        """Owns `context`."""
        self._context = context
        self._landmarks = landmarks
        self._chunk = min(chunk, context.batch)
        self._ids: list[int] = []
        self._checkpoints: list[Checkpoint] = []
        self._has_logits = False

    def sync(self, ids: Sequence[int]) -> Generator[tuple[int, int], None, Reuse]:
        check_tokens(ids, self._context.vocab_size)
        reuse = self._rewind(ids)
        found, best = places(ids, self._landmarks)
        kept = {checkpoint.tokens for checkpoint in self._checkpoints}
        found = [place for place in found if place in kept or place >= max(reuse.reused, 1)]
        marks = survivors({*found, *kept}, best, len(ids), CHECKPOINTS)
        self._checkpoints = [checkpoint for checkpoint in self._checkpoints if checkpoint.tokens in marks]
        marks = [mark for mark in marks if mark not in kept]
        if reuse.reused in marks:
            self._checkpoints.append(Checkpoint(reuse.reused, self._context.save()))
        while (start := len(self._ids)) < len(ids):
            end = min(start + self._chunk, len(ids), *(mark for mark in marks if mark > start))
            self._feed(ids[start:end])
            if end in marks:
                self._checkpoints.append(Checkpoint(end, self._context.save()))
            yield end, len(ids)
        return reuse

    @property
    def ids(self) -> Sequence[int]:
        return self._ids

    @property
    def tokens(self) -> int:
        return len(self._ids)

    def shared(self, ids: Sequence[int]) -> int:
        common = common_prefix(self._ids, ids)
        if self._extends_to(ids, common):
            return common
        return longest([kept.tokens for kept in self._checkpoints], common, len(ids))

    def _extends_to(self, ids: Sequence[int], common: int) -> bool:
        """Whether the state as it is is one of a prefix of `ids`, and can say what comes next if it is all of it."""
        return common == len(self._ids) and (common < len(ids) or self._has_logits)

    def _rewind(self, ids: Sequence[int]) -> Reuse:
        """Go back to the longest state that is a prefix of `ids`."""
        common = common_prefix(self._ids, ids)
        if self._extends_to(ids, common):
            return Reuse(common, len(ids))
        differs = common if self._ids else None
        self._has_logits = False
        at = longest([kept.tokens for kept in self._checkpoints], common, len(ids))
        usable = [kept for kept in self._checkpoints if kept.tokens <= at]
        if usable and self._context.restore(usable[-1].state, at):
            self._checkpoints = usable
            self._ids = self._ids[:at]
        else:
            self._reset()
        return Reuse(len(self._ids), len(ids), differs=differs)

    def _reset(self) -> None:
        self._ids, self._checkpoints, self._has_logits = [], [], False
        self._context.clear()

    def _feed(self, ids: Sequence[int]) -> None:
        try:
            self._context.decode(ids)
        except BaseException:
            self._reset()  # the library's state is undefined after a failure
            raise
        self._ids += ids
        self._has_logits = True

    def logits(self) -> np.ndarray:
        assert self._has_logits, "sync comes first"
        return self._context.logits()[0]

    def advance(self, token: int) -> None:
        self._feed([token])

    def stats(self) -> dict[str, Any]:
        """`peak_memory` is the process's: the library does not say its own."""
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
        return {"peak_memory": peak, "checkpoint_bytes": sum(len(kept.state) for kept in self._checkpoints)}

    def close(self) -> None:
        self._ids, self._checkpoints, self._has_logits = [], [], False
        self._context.close()
