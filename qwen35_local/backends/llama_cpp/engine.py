"""A GGUF file as an engine: the chat stack of `LocalEngine` over a session in llama.cpp."""

from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from ...chat.tokenizer import Tokenizer
from ...checkpoint.files import Checkpoint
from ...checkpoint.identity import fingerprint
from ...engine import EngineInfo, ImagePart, Seen, VideoPart
from ...errors import ContextError, MediaError, MemoryPlanError, UsageError
from ...events import Progress
from ...gguf.convert import Types, convert, convert_vision, has_vision
from ...gguf.model import VISION_PREFIX, GgufModel
from ...gguf.vision import find_vision
from ...gguf.vocabulary import to_spec
from ..kept import Identity
from ..local import LocalEngine, LocalSession
from ..prefix import Landmarks
from .eyes import Eyes
from .handle import Context, Model, check_tokens
from .library import ggml, library_version, load
from .machine import this_machine
from .plan import SPARE, Wishes, make_plan
from .probe import Probe
from .session import Buffers, LlamaSession

CONVERTED_AT_ONCE = 2**30  # bytes: some seconds


class LlamaCppEngine(LocalEngine):
    """A GGUF model. Its tokenizer is the file's, run by the same code as for every other backend."""

    kept = 2  # each has a whole context allocated

    def __init__(
        self,
        path: Path,
        wishes: Wishes,
        on_progress: Callable[[Progress], None] | None = None,
        name: str | None = None,
        scratch: TemporaryDirectory[str] | None = None,
    ):
        """`path` is the model's file, or any part of it; `name` is what the model is called, the file's by default.

        `scratch` is a directory that the engine owns from now on, and which goes with it.
        """
        self._scratch = scratch
        gguf = GgufModel.open(path)
        C = load()
        part = find_vision(gguf)
        self.plan = make_plan(gguf, this_machine(ggml()), wishes, part.nbytes if part else 0)
        probe = Probe(gguf, self.plan, part)
        try:
            tokenizer = Tokenizer(to_spec(gguf.metadata), name=gguf.path.name)
            tokenizer.check(gguf.vocab_size)
        except BaseException:
            probe.cancel()
            raise
        probe.finish()

        def report(fraction: float) -> None:
            if on_progress is not None:
                on_progress(Progress("load", int(fraction * gguf.nbytes), gguf.nbytes, "bytes", self.plan.parts))

        self._fingerprint = fingerprint(*gguf.files)
        self._model = Model(C, gguf, self.plan, report)
        self._eyes = Eyes(part, self._model) if part else None
        self.info = EngineInfo(
            model=name or gguf.name,
            backend="llama.cpp",
            context=self.plan.context,
            vocab_size=gguf.vocab_size,
            parameters=gguf.parameters,
            quantization=gguf.quantization,
            vision=part is not None,
            memory=gguf.trunk_bytes,
            device="GPU" if self.plan.gpu_layers else "CPU",
        )
        try:
            super().__init__(tokenizer, self.open_session(tokenizer))
        except BaseException:
            self._model.close()
            raise

    def has_room(self) -> bool:
        machine = this_machine(ggml())
        free = machine.gpu_memory if self.plan.gpu_layers else machine.memory
        return free > self.plan.session + SPARE

    def open_session(self, tokenizer: Tokenizer | None = None) -> LlamaSession:
        """A timeline with a context of its own; MemoryPlanError when there is no memory for one."""
        if tokenizer is None and not self.has_room():
            raise MemoryPlanError(
                f"another conversation at the same time needs {self.plan.session / 1e9:.1f} GB, which are not free: "
                "load the model with a shorter context"
            )
        return LlamaSession(Context(self._model), Landmarks.of(tokenizer or self.tokenizer), self._eyes)

    def branch(self, session: LocalSession, ids: Sequence[int]) -> LlamaSession:
        assert isinstance(session, LlamaSession)
        return session.branch(Context(self._model), ids)

    def look(self, part: ImagePart | VideoPart) -> Seen:
        if self._eyes is None:
            raise MediaError(
                f"{self.info.model} cannot see: there is no mmproj*.gguf beside it; put the one of its repository there"
            )
        return self._eyes.look(part)

    def release_vision(self) -> None:
        """Give the vision part's memory back. It is loaded when the next picture comes."""
        if self._eyes is not None:
            self._eyes.release()

    def identity(self) -> Identity:
        terms = {
            "KV cache type": self.plan.cache_type,
            "flash attention": self.plan.flash_attention,
            "llama.cpp": library_version(),
        }
        return Identity(self.info.model, self._fingerprint, terms)

    def memory(self) -> Buffers:
        return Buffers()

    def logits(self, ids: Sequence[int], chunk: int = 512) -> np.ndarray:
        """Teacher-forced logits, float32 [T, vocab_size]: row t is for the token after ids[: t + 1]."""
        self._check_open()
        check_tokens(ids, self.info.vocab_size)
        if len(ids) > self.info.context:
            raise ContextError(f"{len(ids)} tokens exceed the context of {self.info.context}")
        context = Context(self._model, outputs=min(chunk, self.plan.batch))
        rows = np.empty((len(ids), self.info.vocab_size), np.float32)
        try:
            for start in range(0, len(ids), chunk):
                part = ids[start : start + chunk]
                context.decode(part, start, all_logits=True)
                rows[start : start + len(part)] = context.logits(len(part))
        finally:
            context.close()
        return rows

    def close(self) -> None:
        if not self._closed:
            super().close()
            if self._eyes is not None:
                self._eyes.close()
            self._model.close()
            if self._scratch is not None:
                self._scratch.cleanup()


def open_llama_cpp(path: Path, wishes: Wishes, on_progress: Callable[[Progress], None] | None = None) -> LlamaCppEngine:
    """A GGUF file, or a small checkpoint directory, which is written as GGUF on the way and not kept."""
    if not path.is_dir():
        return LlamaCppEngine(path, wishes, on_progress)
    size = Checkpoint.open(path).nbytes
    if size > CONVERTED_AT_ONCE:
        raise UsageError(
            f"{path.name} has {size / 1e9:.1f} GB, only {CONVERTED_AT_ONCE / 1e9:.1f} GB are converted while opening: "
            f"write a GGUF file first with 'qwen35 gguf {path} FILE.gguf'"
        )
    scratch = TemporaryDirectory()
    file, types = Path(scratch.name) / "model.gguf", Types(matrices="f32")
    try:
        # float32 matrices: llama.cpp rounds the activations, too, to the type of a 16-bit matrix.
        for _ in convert(path, file, types):
            pass
        if has_vision(path):
            for _ in convert_vision(path, file.with_name(f"{VISION_PREFIX}-{file.name}"), types):
                pass
        return LlamaCppEngine(file, wishes, on_progress, path.name, scratch)
    except BaseException:
        scratch.cleanup()
        raise
