"""Our MLX port as an engine. MLX ties arrays to the thread that made them: open, use and close it in one thread."""

import gc
from collections.abc import Callable, Generator, Sequence
from itertools import pairwise
from pathlib import Path
from time import perf_counter
from typing import Any

import mlx.core as mx
import numpy as np

from ..chat.tokenizer import Tokenizer
from ..checkpoint.files import Checkpoint
from ..engine import EngineInfo, Reuse
from ..errors import ContextError, UsageError
from ..events import Progress
from ..experts import hotset
from ..experts.telemetry import Totals
from ..model.config import ModelConfig
from ..model.qwen35 import BLOCK, Qwen35, block_edges
from ..model.state import Snapshot, State
from ..model.streamed import ExpertStream
from ..model.weights import Weights
from .local import LocalEngine, common_prefix
from .memory import Streaming, expert_layouts, open_stream, plan_memory

DTYPES = {"float32": mx.float32, "bfloat16": mx.bfloat16, "float16": mx.float16}
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


class MlxEngine(LocalEngine):
    """A checkpoint in MLX: released, converted or quantised. What does not fit the memory is streamed from disk."""

    def __init__(
        self,
        path: Path,
        context: int | None = None,
        dtype: str = "auto",
        on_progress: Callable[[Progress], None] | None = None,
        memory: str | int | None = None,
        streaming: Streaming | None = None,
    ):
        """`context` defaults to the model's. `dtype` auto is that of the checkpoint on Metal, and float32 on a CPU,
        where MLX computes 16-bit types slowly and badly. `memory` is the most to use, by default a share of what is
        free; a model that needs more streams its experts, and its context defaults to at most 32,768 tokens."""
        checkpoint = Checkpoint.open(path)
        config = ModelConfig.from_dict(checkpoint.config)
        tokenizer = Tokenizer.from_dir(path)
        tokenizer.check(config.text.vocab_size)
        activations = _activations(dtype, checkpoint)

        def report(nbytes: int) -> None:
            if on_progress is not None:
                on_progress(Progress("load", min(nbytes, checkpoint.nbytes), checkpoint.nbytes, "bytes"))

        weights = Weights(checkpoint, config, activations, report)
        limit = config.text.max_position_embeddings
        self._streaming = streaming or Streaming()
        layouts = expert_layouts(path, weights, config.text)
        self.plan = plan_memory(layouts, weights, config.text, memory, context and _context(context, limit))
        if self.plan.resident and memory is None:
            self.experts = None
            self.model = Qwen35(weights, config.text)
        else:
            self.experts = open_stream(layouts, config.text, self.plan, self._streaming)
            self.model = Qwen35(weights, config.text, self.experts.experts)
            hot = hotset.load(self._streaming.hot_set) if self._streaming.hot_set else None
            self.experts.fill(lambda nbytes: report(weights.nbytes + nbytes), hot)
        self.config = config
        self.info = EngineInfo(
            model=path.name,
            backend="mlx",
            context=_context(context, limit) if self.plan.resident else self.plan.context,
            vocab_size=config.text.vocab_size,
            parameters=weights.parameters,
            quantization=str(config.quantization.default) if config.quantization else "none",
            memory=weights.nbytes + (self.experts.nbytes if self.experts else 0),
            device="Metal" if mx.metal.is_available() else "CPU",
        )
        super().__init__(tokenizer, self.open_session(tokenizer))

    def open_session(self, tokenizer: Tokenizer | None = None) -> MlxSession:
        turn_token = (tokenizer or self.tokenizer).special["<|im_start|>"]
        chunk = self.plan.pass_tokens if self.experts else PREFILL_CHUNK
        return MlxSession(self.model, turn_token, chunk, self.experts)

    def logits(self, ids: Sequence[int], chunk: int = PREFILL_CHUNK) -> np.ndarray:
        """Teacher-forced logits, float32 [T, vocab_size]: row t is for the token after ids[: t + 1]."""
        self._check_open()
        V = self.info.vocab_size
        if not ids or not all(0 <= token < V for token in ids):
            raise UsageError(f"ids must be one or more tokens from 0 to {V - 1}")
        if len(ids) > self.info.context:
            raise ContextError(f"{len(ids)} tokens exceed the context of {self.info.context}")
        state: State = self.model.new_state()
        rows = np.empty((len(ids), V), np.float32)
        for start in range(0, len(ids), chunk):
            hidden = self.model(mx.array([list(ids[start : start + chunk])]), state)
            rows[start : start + chunk] = np.array(self.model.logits(hidden)[0])
        return rows

    def close(self) -> None:
        if not self._closed:
            super().close()
            if self.experts is not None:
                if self._streaming.hot_set is not None:
                    hotset.save(self._streaming.hot_set, self.experts.banks)
                self.experts.close()
            del self.model, self.experts, self._sessions
            gc.collect()
            mx.clear_cache()


def _activations(dtype: str, checkpoint: Checkpoint) -> mx.Dtype:
    if dtype in DTYPES:
        return DTYPES[dtype]
    if dtype != "auto":
        raise UsageError(f"dtype must be auto, {' or '.join(DTYPES)}, not {dtype!r}", "dtype")
    if not mx.metal.is_available():
        return mx.float32
    floats = {tensor.dtype for tensor in checkpoint.tensors.values()}
    return mx.bfloat16 if "BF16" in floats else mx.float16 if "F16" in floats else mx.float32


def _context(asked: int | None, most: int) -> int:
    if asked is None:
        return most
    if not isinstance(asked, int) or not 1 <= asked <= most:
        raise UsageError(f"context must be from 1 to the model's {most} tokens, not {asked!r}", "context")
    return asked
