"""One timeline of tokens on our MLX port."""

from collections.abc import Generator, Sequence
from itertools import pairwise
from time import perf_counter
from typing import Any

import mlx.core as mx
import numpy as np

from ..engine import Reuse
from ..errors import UsageError
from ..experts.telemetry import Totals
from ..model.qwen35 import BLOCK, Qwen35, block_edges
from ..model.state import Snapshot
from ..model.streamed import ExpertStream
from .local import common_prefix

PREFILL_CHUNK = 512  # tokens; bounds the scores of one attention layer to heads * 512 * context floats
SNAPSHOTS = 4  # of the recurrent state, kept per session: 183 MiB each at the size of the 397B


class MlxSession:
    """One timeline on the model. The recurrent state cannot be cut back, so snapshots are kept where turns begin."""

    def __init__(self, model: Qwen35, turn_token: int, chunk: int = PREFILL_CHUNK, stream: ExpertStream | None = None):
        """`turn_token` is `<|im_start|>`; the last one of a prompt is as far as the next prompt surely agrees.

        `chunk` is the most tokens of one pass through the layers: many when every pass reads the experts of `stream`.
        """
        self._stream = stream
        self._before, self._began = stream.totals() if stream else Totals(), perf_counter()
        self._model = model
        self._turn_token = turn_token
        self._chunk = chunk
        self._ids: list[int] = []
        self._state = model.new_state()
        self._snapshots: list[Snapshot] = []
        self._logits: mx.array | None = None

    def sync(self, ids: Sequence[int]) -> Generator[tuple[int, int], None, Reuse]:
        if not ids:
            raise UsageError("the prompt is empty")
        if unknown := [token for token in ids if not 0 <= token < self._model.config.vocab_size]:
            raise UsageError(f"token {unknown[0]} is not below the model's {self._model.config.vocab_size}")
        mx.reset_peak_memory()
        if self._stream is not None:
            self._before, self._began = self._stream.totals(), perf_counter()
        reuse = self._rewind(ids)
        if reuse.reused < len(ids):
            self._logits = None
        marks = [at for at, token in enumerate(ids) if token == self._turn_token and at > reuse.reused]
        marks = {*marks[:1], *marks[-1:]}  # after a leading system message, and before the coming answer
        begin, block = len(self._ids), min(BLOCK, self._chunk)
        edges = block_edges(len(ids) - begin, [mark - begin for mark in sorted(marks)], block)
        for start, end in pairwise(_passes([begin + edge for edge in edges], self._chunk)):
            inner = sorted(mark - start for mark in marks if start < mark <= end)
            for layers in self._pass(ids[start:end], inner):
                if self._stream is not None:  # a sweep over the disk takes its time
                    yield start + (end - start) * layers // len(self._model.layers), len(ids)
            yield end, len(ids)
        return reuse

    def _pass(self, new: Sequence[int], marks: Sequence[int] = ()) -> Generator[int, None, None]:
        """Append `new` tokens, with snapshots at `marks` (offsets among them); yields the number of layers done.

        A pass that does not end, cancelled or failed, leaves nothing that could be used.
        """
        steps = self._model.run(mx.array([list(new)]), self._state, marks)
        try:
            while True:
                if (layers := next(steps)) < len(self._model.layers):
                    yield layers
        except StopIteration as last:
            blocks, snapshots = last.value
        except BaseException:
            self._reset()
            raise
        self._snapshots = [*self._snapshots, *snapshots][-SNAPSHOTS:]
        self._took(new, blocks[-1])

    def shared(self, ids: Sequence[int]) -> int:
        common = common_prefix(self._ids, ids)
        if common == len(self._ids) and (common < len(ids) or self._logits is not None):
            return common
        return max((mark.tokens for mark in self._snapshots if mark.tokens <= min(common, len(ids) - 1)), default=0)

    @property
    def tokens(self) -> int:
        return len(self._ids)

    def _rewind(self, ids: Sequence[int]) -> Reuse:
        """Go back to the longest state that is a prefix of `ids` (shorter than it, unless it is all of it)."""
        common = common_prefix(self._ids, ids)
        if common == len(self._ids) and (common < len(ids) or self._logits is not None):
            return Reuse(common, len(ids))
        usable = [snapshot for snapshot in self._snapshots if snapshot.tokens <= min(common, len(ids) - 1)]
        reason = f"the prompt differs from the last one after {common} tokens"
        if not usable:
            self._reset()
            return Reuse(0, len(ids), reason if common else "")
        self._state.restore(usable[-1])
        self._snapshots = usable
        self._ids = self._ids[: self._state.tokens]
        return Reuse(self._state.tokens, len(ids), reason)

    def _reset(self) -> None:
        self._ids, self._snapshots, self._logits = [], [], None
        self._state = self._model.new_state()

    def _took(self, ids: Sequence[int], residual: mx.array) -> None:
        """The state is `ids` further; `residual` [1, t, H] ends with the last of them."""
        self._ids += ids
        self._logits = self._model.logits(self._model.norm(residual[:, -1]))[0]
        mx.async_eval(self._logits, *self._state.arrays)
        if len(ids) > 1:
            mx.eval(self._logits)  # so that a pass is done, and its temporaries gone, when it is reported

    def logits(self) -> np.ndarray:
        assert self._logits is not None, "sync comes first"
        return np.array(self._logits)

    def advance(self, token: int) -> None:
        for _ in self._pass([token]):
            pass

    def stats(self) -> dict[str, Any]:
        found: dict[str, Any] = {"peak_memory": mx.get_peak_memory(), "state_bytes": self._state.nbytes}
        if self._stream is not None:
            found["experts"] = (self._stream.totals() - self._before).report(perf_counter() - self._began)
        return found

    def close(self) -> None:
        self._reset()


def _passes(edges: Sequence[int], most: int) -> list[int]:
    """Those of `edges` where a pass ends, so that none takes more than `most` tokens unless a single block does."""
    taken = [edges[0]]
    for edge, following in pairwise([*edges[1:], float("inf")]):
        if following - taken[-1] > most:
            taken.append(int(edge))
    return taken
