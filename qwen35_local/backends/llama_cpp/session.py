"""One timeline in llama.cpp. The KV cache can be cut back anywhere, the recurrent state only to a checkpoint."""

import ctypes
import resource
import sys
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...engine import Prompt, Reuse, Span
from ...errors import SessionError
from ...model.positions import positions_of
from ...sessions.file import Array, Entry
from ..prefix import Landmarks, common_prefix, longest, places, survivors
from .eyes import Eyes
from .handle import Context, check_tokens
from .plan import CHECKPOINTS

CHUNK = 512  # tokens between two reports and two chances to cancel


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The recurrent state after `tokens` tokens, where the next one stands at `position`."""

    tokens: int
    position: int
    state: Any


class Buffers:
    """Memory for saved states, by name."""

    def __init__(self) -> None:
        self.arrays: dict[str, Any] = {}

    def room(self, entry: Entry) -> memoryview:
        """The writable bytes of a new buffer."""
        self.arrays[entry.name] = (ctypes.c_uint8 * entry.nbytes)()
        return memoryview(self.arrays[entry.name]).cast("B")


class LlamaSession:
    """Keeps checkpoints where prompts part from one another (see `prefix.py`)."""

    def __init__(self, context: Context, landmarks: Landmarks, eyes: Eyes | None = None, chunk: int = CHUNK):
        """Owns `context`; `eyes` see the pictures of prompts."""
        self._context = context
        self._landmarks = landmarks
        self._eyes = eyes
        self._chunk = min(chunk, context.batch)
        self._ids: list[int] = []
        self._position = 0  # of the next token: behind their number from the first picture on
        self._checkpoints: list[Checkpoint] = []
        self._has_logits = False

    def sync(self, ids: Sequence[int]) -> Generator[tuple[int, int], None, Reuse]:
        check_tokens(ids, self._context.vocab_size)
        prompt = Prompt.of(ids)
        identity = prompt.identity
        reuse = self._rewind(identity)
        marks = self._marks(prompt)
        positions = positions_of(len(ids), prompt.spans) if prompt.spans else None
        edges = sorted({*marks, *(edge for span in prompt.spans for edge in (span.start, span.start + span.tokens))})
        while (start := len(self._ids)) < len(ids):
            end = min(start + self._chunk, len(ids), *(edge for edge in edges if edge > start))
            span = next((span for span in prompt.spans if span.start <= start < span.start + span.tokens), None)
            if span is None or positions is None:
                self._feed(ids[start:end])
            else:
                self._show(span, start - span.start, identity[start:end], positions[:, start : end + 1])
            if end in marks:
                self._checkpoints.append(Checkpoint(end, self._position, self._context.save()))
            yield end, len(ids)
        if self._eyes is not None:
            self._eyes.rest()
        return reuse

    def _marks(self, prompt: Prompt) -> list[int]:
        """Where to keep checkpoints on the way to `prompt`; forgets those that are worth less.

        Not inside a picture: its tokens stand at one point of time, between which nothing can be cut.
        """
        found, best = places(prompt, self._landmarks)
        here, kept = len(self._ids), {checkpoint.tokens for checkpoint in self._checkpoints}
        inside = {at for span in prompt.spans for at in range(span.start + 1, span.start + span.tokens)}
        found = [place for place in found if place in kept or (place >= max(here, 1) and place not in inside)]
        chosen = survivors({*found, *kept}, best, len(prompt), CHECKPOINTS)
        self._checkpoints = [checkpoint for checkpoint in self._checkpoints if checkpoint.tokens in chosen]
        new = [place for place in chosen if place not in kept]
        if here in new:
            self._checkpoints.append(Checkpoint(here, self._position, self._context.save()))
        return new

    @property
    def ids(self) -> Sequence[int]:
        return self._ids

    @property
    def tokens(self) -> int:
        return len(self._ids)

    def shared(self, ids: Sequence[int]) -> int:
        ids = Prompt.of(ids).identity
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
        if usable and self._context.restore(usable[-1].state, usable[-1].position):
            self._checkpoints = usable
            self._ids, self._position = self._ids[:at], usable[-1].position
        else:
            self._reset()
        return Reuse(len(self._ids), len(ids), differs=differs)

    def branch(self, context: Context, ids: Sequence[int]) -> "LlamaSession":
        """Another session, on `context`, that knows what this one knows of `ids`. Checkpoints are shared."""
        other = LlamaSession(context, self._landmarks, self._eyes, self._chunk)
        ids = Prompt.of(ids).identity
        at = longest([kept.tokens for kept in self._checkpoints], common_prefix(self._ids, ids), len(ids))
        if usable := [kept for kept in self._checkpoints if kept.tokens <= at]:
            last = usable[-1]
            if context.restore_all(self._context.save_all()) and context.restore(last.state, last.position):
                other._checkpoints, other._ids, other._position = usable, self._ids[:at], last.position
            else:
                context.clear()
        return other

    def _reset(self) -> None:
        self._ids, self._position, self._checkpoints, self._has_logits = [], 0, [], False
        self._context.clear()

    def _feed(self, ids: Sequence[int]) -> None:
        try:
            self._context.decode(ids, self._position)
        except BaseException:
            self._reset()  # the library's state is undefined after a failure
            raise
        self._ids += ids
        self._position += len(ids)
        self._has_logits = True

    def _show(self, span: Span, at: int, identity: Sequence[int], positions: np.ndarray) -> None:
        """Feed a picture's tokens from its `at`-th on; `positions` int32 [3, n + 1], the last that of what follows."""
        assert self._eyes is not None
        rows = self._eyes.rows(span)[at : at + len(identity)]
        try:
            self._context.decode_rows(rows, positions[:, :-1])
        except BaseException:
            self._reset()
            raise
        self._ids += identity
        self._position = int(positions[0, -1])
        self._has_logits = True

    def logits(self) -> np.ndarray:
        assert self._has_logits, "sync comes first"
        return self._context.logits()[0]

    def advance(self, token: int) -> None:
        self._feed([token])

    def dump(self) -> tuple[dict[str, Any], Iterator[Array]]:
        """(what to know of the state, its arrays), with the checkpoints that help most; good until the next call."""
        best = places(self._ids, self._landmarks)[1]
        checkpoints = [kept for kept in self._checkpoints if kept.tokens in best]
        states = [("state", self._context.save_all()), *((f"at.{kept.tokens}", kept.state) for kept in checkpoints)]
        arrays = (Array(name, "uint8", (len(state),), memoryview(state).cast("B")) for name, state in states)
        meta = {"position": self._position, "checkpoints": [[kept.tokens, kept.position] for kept in checkpoints]}
        return meta, arrays

    def revive(self, ids: Sequence[int], meta: Mapping[str, Any], arrays: Mapping[str, Any]) -> None:
        """Be what `dump` told of, but for its logits. Raises SessionError."""
        self._reset()
        if not self._context.restore_all(arrays["state"]):
            self._reset()
            raise SessionError("llama.cpp does not take the saved state back: it is of another build or model")
        self._ids, self._position = list(ids), meta["position"]
        self._checkpoints = [
            Checkpoint(tokens, position, arrays[f"at.{tokens}"]) for tokens, position in meta["checkpoints"]
        ]

    def stats(self) -> dict[str, Any]:
        """`peak_memory` is the process's: the library does not say its own."""
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
        return {"peak_memory": peak, "checkpoint_bytes": sum(len(kept.state) for kept in self._checkpoints)}

    def close(self) -> None:
        self._ids, self._checkpoints, self._has_logits = [], [], False
        self._context.close()
