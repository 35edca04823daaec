"""One timeline of tokens on our MLX port."""

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import replace
from itertools import pairwise
from typing import Any

import mlx.core as mx
import numpy as np

from ..engine import Prompt, Reuse
from ..errors import UsageError
from ..model.fusion import Fused
from ..model.key_values import KeyValues
from ..model.qwen35 import BLOCK, Qwen35, block_edges
from ..model.state import Snapshot
from ..model.stream import ExpertStream
from ..sessions.file import Array
from .ahead import Ahead
from .eyes import Eyes
from .mlx_saved import arrays_of, describe, revived
from .pace import Pace
from .prefix import EVERY, Grid, Landmarks, common_prefix, longest, passes, places, survivors

PREFILL_CHUNK = 512  # tokens; bounds the scores of one attention layer to heads * 512 * context floats
SNAPSHOTS = 4  # of the recurrent state, kept per session at least: 183 MiB each at the size of the 397B


class MlxSession:
    """One timeline on the model, with snapshots of its recurrent state where prompts part (see `prefix.py`)."""

    def __init__(
        self,
        model: Qwen35,
        landmarks: Landmarks,
        chunk: int = PREFILL_CHUNK,
        stream: ExpertStream | None = None,
        snapshots: Callable[[], int] = lambda: SNAPSHOTS,
        every: int = EVERY,
        eyes: Eyes | None = None,
        pace: Pace | None = None,
        reproducible: bool = False,
    ):
        """`chunk` is the most tokens of one pass through the layers: many when every pass reads the experts of
        `stream`. `snapshots` says how many may be kept now; one is taken every `every` tokens at least. `eyes` see the
        pictures of prompts. With a `pace` and the model's MTP head tokens are guessed ahead. `reproducible`: the logits
        depend on the tokens alone, to the bit; then nothing goes on from tokens that were not read as a prompt."""
        self._eyes = eyes
        self._stream = stream
        self._streamed = stream.meter() if stream else None
        self._model = model
        self._landmarks = landmarks
        self._chunk = chunk
        self._most = snapshots
        self._every = every
        self._grid = Grid(landmarks, BLOCK) if reproducible else None
        self._read = 0  # of the tokens those that were read as a prompt; the others one by one
        self._ids: list[int] = []
        self._state = model.new_state()
        self._snapshots: list[Snapshot] = []
        self._logits: mx.array | None = None
        self._pace = pace if model.mtp is not None else None
        self._ahead = self._new_ahead()

    def sync(self, ids: Sequence[int]) -> Generator[tuple[int, int], None, Reuse]:
        if not ids:
            raise UsageError("the prompt is empty")
        if unknown := [token for token in ids if not 0 <= token < self._model.config.vocab_size]:
            raise UsageError(f"token {unknown[0]} is not below the model's {self._model.config.vocab_size}")
        mx.reset_peak_memory()
        if self._stream is not None:
            self._streamed = self._stream.meter()
        if self._ahead is not None:
            self._ahead.drop(self._state)
        prompt = Prompt.of(ids)
        identity = prompt.identity
        reuse = self._rewind(identity)
        if reuse.reused < len(ids):
            self._logits = None
        view = self._eyes.view(prompt, reuse.reused) if self._eyes is not None else None
        for _ in view.encode() if view is not None else ():
            yield reuse.reused, len(ids)
        marks = self._marks(ids)
        begin, block = len(self._ids), BLOCK if self._grid else min(BLOCK, self._chunk)
        breaks = [at for at in self._grid.breaks(ids) if at > begin] if self._grid else []
        edges = block_edges(len(ids) - begin, {at - begin for at in (*marks, *breaks)}, block)
        for start, end in pairwise(passes([begin + edge for edge in edges], self._chunk)):
            inner, blocks = ([at - start for at in places if start < at <= end] for places in (marks, breaks))
            fused = view.fused(start, end) if view is not None else None
            for layers in self._pass(ids[start:end], inner, fused, identity[start:end], blocks):
                if self._stream is not None:  # a sweep over the disk takes its time
                    yield start + (end - start) * layers // len(self._model.layers), len(ids)
            self._read = end
            yield end, len(ids)
        return reuse

    def _marks(self, ids: Sequence[int]) -> list[int]:
        """Where to take snapshots on the way to `ids`; forgets those that are worth less."""
        found, best = places(ids, self._landmarks, self._every)
        kept = {snapshot.tokens for snapshot in self._snapshots}
        here = len(self._ids)
        if here in found and here not in kept:
            self._snapshots.append(self._state.snapshot())
            kept.add(here)
        # What lies behind cannot be had any more.
        found = [place for place in found if place in kept or place > here]
        chosen = survivors({*found, *kept}, best, len(ids), self._most())
        self._snapshots = [snapshot for snapshot in self._snapshots if snapshot.tokens in chosen]
        return [place for place in chosen if place > here]

    def _pass(
        self,
        new: Sequence[int],
        marks: Sequence[int] = (),
        fused: Fused | None = None,
        identity: Sequence[int] | None = None,
        breaks: Sequence[int] = (),
    ) -> Generator[int, None, None]:
        """Append `new` tokens, with snapshots at `marks` (offsets among them); yields the number of layers done.

        `fused` says what pictures change, `identity` as what the tokens are remembered, `breaks` where blocks begin.

        A pass over a prompt that does not end, cancelled or failed, leaves the session as it was.
        """
        if self._stream is not None:
            self._stream.breathe()
        # Not for a single token: what is kept cannot be written over, and each would need a new state.
        before = self._state.snapshot() if len(new) > 1 else None
        steps = self._model.run(mx.array([list(new)]), self._state, marks, fused, breaks)
        try:
            while True:
                if (layers := next(steps)) < len(self._model.layers):
                    yield layers
        except StopIteration as last:
            blocks, snapshots = last.value
        except BaseException:
            if before is not None:
                self._state.restore(before)
            else:
                self._reset()
            raise
        self._ids += new if identity is None else identity
        if self._ahead is not None:
            snapshots = self._seen(blocks, snapshots)
        self._snapshots += snapshots
        self._took(blocks[-1], len(new))

    def _seen(self, blocks: list[mx.array], snapshots: list[Snapshot]) -> list[Snapshot]:
        """Let the MTP head see a pass; the snapshots with what it needs to go on from them."""
        hidden = self._model.norm(mx.concatenate(blocks, axis=1) if len(blocks) > 1 else blocks[0])
        self._model.see(self._state, hidden, self._ids)
        start = len(self._ids) - hidden.shape[1]
        tails = [mx.contiguous(hidden[:, s.tokens - start - 1 : s.tokens - start]) for s in snapshots]
        mx.eval(tails)
        return [replace(snapshot, tail=tail) for snapshot, tail in zip(snapshots, tails, strict=True)]

    def shared(self, ids: Sequence[int]) -> int:
        ids = Prompt.of(ids).identity
        common = common_prefix(self._ids, ids)
        if self._extends_to(ids, common):
            return common
        return longest([snapshot.tokens for snapshot in self._snapshots], common, len(ids))

    @property
    def ids(self) -> Sequence[int]:
        return self._ids

    @property
    def tokens(self) -> int:
        return len(self._ids)

    def _extends_to(self, ids: Sequence[int], common: int) -> bool:
        """Whether `ids` can be gone on with from the state as it is."""
        if common < len(self._ids) or (common == len(ids) and self._logits is None):
            return False
        return self._grid is None or (common == self._read and self._grid.has(ids, common))

    def _rewind(self, ids: Sequence[int]) -> Reuse:
        """Go back to the longest state that is a prefix of `ids` (shorter than it, unless it is all of it)."""
        common = common_prefix(self._ids, ids)
        if self._extends_to(ids, common):
            return Reuse(common, len(ids))
        differs = common if self._ids else None
        at = longest([snapshot.tokens for snapshot in self._snapshots], common, len(ids))
        self._snapshots = [snapshot for snapshot in self._snapshots if snapshot.tokens <= at]
        if at:
            self._state.restore(self._snapshots[-1])
            self._ids, self._read = self._ids[:at], at
        else:
            self._reset()
        return Reuse(at, len(ids), differs=differs)

    def branch(self, ids: Sequence[int]) -> "MlxSession":
        """Another session that knows what this one knows of `ids`: keys and values are copied, the rest is shared."""
        other = copy(self)
        other._ahead = None  # what was guessed is this one's
        other._reset()
        ids = Prompt.of(ids).identity
        if at := longest([s.tokens for s in self._snapshots], common_prefix(self._ids, ids), len(ids)):
            other._snapshots = [snapshot for snapshot in self._snapshots if snapshot.tokens <= at]
            other._state = self._state.branch(other._snapshots[-1])
            other._ids, other._read = self._ids[:at], at
        return other

    def dump(self) -> tuple[dict[str, Any], Iterator[Array]]:
        """(what to know of the state, its arrays), with the snapshots that help most; good until the next call."""
        if self._ahead is not None:
            self._ahead.drop(self._state)
        best = places(self._ids, self._landmarks, self._every)[1]
        snapshots = [snapshot for snapshot in self._snapshots if snapshot.tokens in best]
        meta = describe(self._state, snapshots) | {"read": self._read}
        return meta, arrays_of(self._state, snapshots, self._logits)

    def revive(self, ids: Sequence[int], meta: Mapping[str, Any], arrays: Mapping[str, mx.array]) -> None:
        """Be what `dump` told of. Raises SessionError."""
        self._reset()
        self._state, self._snapshots, self._logits = revived(self._model, meta, arrays)
        self._ids, self._read = list(ids), meta["read"]
        if self._pace is None or self._state.tail is None:
            # Not both, the head and what it needs of these tokens: this timeline is gone on with without it.
            self._ahead, self._state.tail, self._state.mtp = None, None, KeyValues(self._model.kv)
            self._snapshots = [replace(snapshot, tail=None) for snapshot in self._snapshots]

    def _new_ahead(self) -> Ahead | None:
        return None if self._pace is None else Ahead(self._model, self._pace)

    def _reset(self) -> None:
        self._ids, self._read, self._snapshots, self._logits = [], 0, [], None
        self._state, self._ahead = self._model.new_state(), self._new_ahead()

    def _took(self, residual: mx.array, tokens: int) -> None:
        """The state is so many tokens further; `residual` [1, t, H] ends with the last of them."""
        self._logits = self._model.logits(self._model.norm(residual[:, -1]))[0]
        mx.async_eval(self._logits, *self._state.arrays)
        if tokens > 1:
            mx.eval(self._logits)  # so that a pass is done, and its temporaries gone, when it is reported

    def logits(self) -> np.ndarray:
        assert self._logits is not None, "sync comes first"
        return np.array(self._logits) if self._ahead is None else self._ahead.read(self._logits)

    def advance(self, token: int) -> None:
        if self._ahead is None:
            for _ in self._pass([token]):
                pass
            return
        if (known := self._ahead.knows(token, self._state)) is not None:
            self._ids.append(token)
            self._logits = known
            return
        try:
            self._ids.append(token)
            self._logits = self._ahead.advance(self._ids, self._state)
        except BaseException:
            self._reset()
            raise

    def stats(self) -> dict[str, Any]:
        found: dict[str, Any] = {
            "peak_memory": mx.get_peak_memory(),
            "state_bytes": self._state.nbytes,
            "snapshots": [snapshot.tokens for snapshot in self._snapshots],
        }
        if self._ahead is not None:
            found["speculation"] = self._ahead.pace.report()
        if self._streamed is not None:
            found["experts"] = self._streamed()
        return found

    @property
    def nbytes(self) -> int:
        """Of the state and its snapshots."""
        return self._state.nbytes + sum(snapshot.nbytes for snapshot in self._snapshots)

    def close(self) -> None:
        self._reset()
