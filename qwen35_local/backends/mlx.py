"""Our MLX port as an engine. MLX ties arrays to the thread that made them: open, use and close it in one thread."""

import gc
from collections.abc import Callable, Sequence
from pathlib import Path

import mlx.core as mx
import numpy as np

from metal_kernels.dispatch import configure

from ..chat.said import Said
from ..chat.tokenizer import Tokenizer
from ..checkpoint.files import Checkpoint
from ..checkpoint.identity import fingerprint
from ..config import Settings, Streaming
from ..engine import EngineInfo, ImagePart, Seen, VideoPart
from ..errors import ContextError, UsageError
from ..events import Progress
from ..experts import hotset
from ..model.config import ModelConfig
from ..model.kv_format import KvFormat
from ..model.mtp import has_head
from ..model.qwen35 import Qwen35
from ..model.state import State
from ..model.weights import Weights
from .eyes import open_eyes, sight_of
from .kept import Identity
from .local import LocalEngine, LocalSession
from .memory import expert_layouts, open_stream, plan_memory
from .mlx_saved import Memory
from .mlx_session import PREFILL_CHUNK, MlxSession
from .pace import Pace
from .prefix import Landmarks

MOST_DRAFTS = 3  # the head was trained to guess one token and is fed its own guesses for more
SPECULATE = ("off", "auto", "1", "2", "3")
DTYPES = {"float32": mx.float32, "bfloat16": mx.bfloat16, "float16": mx.float16}


class MlxEngine(LocalEngine):
    """A checkpoint in MLX: released, converted or quantised. What does not fit the memory is streamed from disk."""

    kept = 4

    def __init__(
        self,
        path: Path,
        context: int | None = None,
        dtype: str = "auto",
        on_progress: Callable[[Progress], None] | None = None,
        memory: str | int | None = None,
        streaming: Streaming | None = None,
        speculate: str | int = "off",
        kv_bits: int | None = None,
        reproducible: bool = False,
    ):
        """`context` defaults to the model's; a longer one stretches its positions (YaRN), by 2 or 4. `dtype` auto is
        that of the checkpoint on Metal, and float32 on a CPU, where MLX computes 16-bit types slowly and badly.
        `memory` is the most to use, by default a share of what is free; a model that needs more streams its experts,
        and its context defaults to at most 32,768 tokens. `speculate`: how many tokens the model's MTP head guesses
        ahead, 1 to 3; auto is as many as pay, off none. `kv_bits` keeps keys and values in 16, 8 or 4 bits.
        `reproducible`: the logits after a prompt are the same to the bit, whatever was known of it, at any memory
        budget; an answer is then read again as part of the next prompt."""
        settings = Settings.resolve()
        configure(settings.kernels, settings.data)
        checkpoint = Checkpoint.open(path)
        config = ModelConfig.from_dict(checkpoint.config).stretched(context)
        tokenizer = Tokenizer.from_dir(path)
        tokenizer.check(config.text.vocab_size)
        activations = _activations(dtype, checkpoint)

        planned: dict[str, int] = {}  # replaced, never changed: another thread reads it

        def report(nbytes: int) -> None:
            if on_progress is not None:
                on_progress(Progress("load", min(nbytes, checkpoint.nbytes), checkpoint.nbytes, "bytes", planned))

        weights = Weights(checkpoint, config, activations, report)
        limit, kv = config.text.max_position_embeddings, KvFormat(kv_bits)
        if reproducible and speculate not in ("off", "auto"):
            raise UsageError("reproducible answers are computed token by token: use speculate off", "speculate")
        self._streaming = streaming or Streaming()
        drafts = 0 if reproducible else _drafts(speculate, weights)
        layouts = expert_layouts(path, weights, config.text, drafts > 0, self._streaming.store)
        asked = context and _context(context, limit)
        self.plan = plan_memory(layouts, weights, config, memory, asked, drafts, sight_of(path, weights, config), kv)
        planned = dict(self.plan.items())
        self._pace = Pace(drafts, fixed=speculate != "auto") if drafts else None
        if self.plan.resident and memory is None:
            self.experts = None
            self.model = Qwen35(weights, config.text, mtp=drafts > 0, kv=kv)
        else:
            self.experts = open_stream(layouts, config.text, self.plan, self._streaming)
            self.model = Qwen35(weights, config.text, self.experts.experts, mtp=drafts > 0, kv=kv)
            hot = hotset.load(self._streaming.hot_set) if self._streaming.hot_set else None
            self.experts.fill(lambda nbytes: report(weights.nbytes + nbytes), hot)
        self.config = config
        self.eyes = open_eyes(path, weights, config, tokenizer, self.plan)
        self.info = EngineInfo(
            model=path.name,
            backend="mlx",
            context=_context(context, limit) if self.plan.resident else self.plan.context,
            vocab_size=config.text.vocab_size,
            parameters=weights.parameters,
            quantization=str(config.quantization.default) if config.quantization else "none",
            memory=weights.nbytes + (self.experts.nbytes if self.experts else 0),
            device="Metal" if mx.metal.is_available() else "CPU",
            vision=self.eyes is not None,
            budget=self.plan.budget,
            yarn=config.text.rope.factor,
        )
        self._path, self._reproducible = path, reproducible
        super().__init__(tokenizer, self.open_session(tokenizer))
        if reproducible:
            self.said = Said(0)  # a prompt is what it is rendered to, whatever was said before

    def open_session(self, tokenizer: Tokenizer | None = None) -> MlxSession:
        chunk = self.plan.pass_tokens if self.experts else PREFILL_CHUNK
        landmarks = Landmarks.of(tokenizer or self.tokenizer)
        return MlxSession(
            self.model,
            landmarks,
            chunk,
            self.experts,
            self._snapshots,
            eyes=self.eyes,
            pace=self._pace,
            reproducible=self._reproducible,
        )

    def identity(self) -> Identity:
        terms = {
            "activations": str(self.model.dtype).rpartition(".")[2],
            "kv_bits": self.model.kv.bits,
            "YaRN factor": self.info.yarn,
            "reproducible": self._reproducible,
        }
        return Identity(self.info.model, fingerprint(self._path), terms)

    def memory(self) -> Memory:
        return Memory()

    def look(self, part: ImagePart | VideoPart) -> Seen:
        return super().look(part) if self.eyes is None else self.eyes.look(part)

    def release_vision(self) -> None:
        """Give the vision tower's memory back. It is loaded when the next picture comes."""
        if self.eyes is not None:
            self.eyes.release()

    def _snapshots(self) -> int:
        """How many each session may keep: those of the plan, shared fairly."""
        return max(2, self.plan.snapshots // max(1, len(self._sessions)))

    def has_room(self) -> bool:
        """Whether the plan's memory for states holds those there are and one more."""
        used = sum(session.nbytes for session in self._sessions if isinstance(session, MlxSession))
        return used + 2 * self.plan.geometry.state_nbytes <= self.plan.kv + self.plan.state

    def branch(self, session: LocalSession, ids: Sequence[int]) -> LocalSession:
        assert isinstance(session, MlxSession)
        return session.branch(ids)

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
        if self._closed:
            return
        try:
            super().close()
        finally:
            if self.experts is not None:
                if self._streaming.hot_set is not None:
                    hotset.save(self._streaming.hot_set, self.experts.banks)
                self.experts.close()
            if self.eyes is not None:
                self.eyes.forget()
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


def _drafts(speculate: str | int, weights: Weights) -> int:
    """The most tokens to guess ahead."""
    if str(speculate) not in SPECULATE:
        raise UsageError(
            f"speculate must be {', '.join(SPECULATE[:-1])} or {SPECULATE[-1]}, not {speculate!r}", "speculate"
        )
    if speculate == "off":
        return 0
    if not has_head(weights.tensors):
        if speculate == "auto":
            return 0
        raise UsageError("this checkpoint has no MTP head to guess tokens with: use speculate off", "speculate")
    return MOST_DRAFTS if speculate == "auto" else int(speculate)


def _context(asked: int | None, most: int) -> int:
    if asked is None:
        return most
    if not isinstance(asked, int) or not 1 <= asked <= most:
        raise UsageError(f"context must be from 1 to the model's {most} tokens, not {asked!r}", "context")
    return asked
