"""One timeline in llama.cpp. The KV cache can be cut back anywhere, the recurrent state only to a checkpoint."""

import resource
import sys
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...engine import Reuse
from ..local import common_prefix
from .handle import Context, check_tokens
from .plan import CHECKPOINTS

CHUNK = 512  # tokens between two reports and two chances to cancel


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The recurrent state after `tokens` tokens."""

    tokens: int
    state: Any


class LlamaSession:
    """Keeps checkpoints where conversations part: after the system message, and before each answer.

    There the next prompt surely agrees with this one: the template takes the thoughts out of earlier answers.
    """

    def __init__(self, context: Context, turn_token: int, chunk: int = CHUNK):
        """Owns `context`. `turn_token` is `<|im_start|>`."""
        self._context = context
        self._turn_token = turn_token
        self._chunk = min(chunk, context.batch)
        self._ids: list[int] = []
        self._checkpoints: list[Checkpoint] = []
        self._has_logits = False

    def sync(self, ids: Sequence[int]) -> Generator[tuple[int, int], None, Reuse]:
        check_tokens(ids, self._context.vocab_size)
        reuse = self._rewind(ids)
        marks = [at for at, token in enumerate(ids) if token == self._turn_token and at >= max(reuse.reused, 1)]
        marks = {*marks[:1], *marks[-1:]}
        if reuse.reused in marks and reuse.reused not in {kept.tokens for kept in self._checkpoints}:
            self._keep(Checkpoint(reuse.reused, self._context.save()))
        while (start := len(self._ids)) < len(ids):
            end = min(start + self._chunk, len(ids), *(mark for mark in marks if mark > start))
            self._feed(ids[start:end])
            if end in marks:
                self._keep(Checkpoint(end, self._context.save()))
            yield end, len(ids)
        return reuse

    def _keep(self, checkpoint: Checkpoint) -> None:
        """The first checkpoint serves every conversation with this system message; of the others the newest stay."""
        self._checkpoints.append(checkpoint)
        if len(self._checkpoints) > CHECKPOINTS:
            del self._checkpoints[1]

    @property
    def tokens(self) -> int:
        return len(self._ids)

    def shared(self, ids: Sequence[int]) -> int:
        common = common_prefix(self._ids, ids)
        if self._extends_to(ids, common):
            return common
        return max((kept.tokens for kept in self._usable(ids, common)), default=0)

    def _extends_to(self, ids: Sequence[int], common: int) -> bool:
        """Whether the state as it is is one of a prefix of `ids`, and can say what comes next if it is all of it."""
        return common == len(self._ids) and (common < len(ids) or self._has_logits)

    def _usable(self, ids: Sequence[int], common: int) -> list[Checkpoint]:
        """The checkpoints before the first difference; one token at least must be read for there to be logits."""
        return [kept for kept in self._checkpoints if kept.tokens <= min(common, len(ids) - 1)]

    def _rewind(self, ids: Sequence[int]) -> Reuse:
        """Go back to the longest state that is a prefix of `ids`."""
        common = common_prefix(self._ids, ids)
        if self._extends_to(ids, common):
            return Reuse(common, len(ids))
        reason = f"the prompt differs from the last one after {common} tokens" if common else ""
        self._has_logits = False
        usable = self._usable(ids, common)
        if usable and self._context.restore(usable[-1].state, usable[-1].tokens):
            self._checkpoints = usable
            self._ids = self._ids[: usable[-1].tokens]
            return Reuse(len(self._ids), len(ids), reason)
        self._reset()
        return Reuse(0, len(ids), reason)

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
