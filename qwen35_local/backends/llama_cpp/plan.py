"""What goes where: a frozen plan from a file's sizes, a machine and the user's wishes. Pure; refuses what cannot fit.

A GGUF file larger than memory does run, from disk: measured 25 to 50 times slower, since every token reads nearly the
whole file. So it is refused, with both numbers.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from ...errors import MemoryPlanError, UsageError
from ...gguf.model import GgufModel
from .machine import Machine

GB = 10**9
Auto = Literal["auto"]
# KV-cache dtype -> (ggml_type, bytes of 32 values: packed types have blocks of them).
CACHE_TYPES = {"float32": (0, 128), "float16": (1, 64), "bfloat16": (30, 64), "q8_0": (8, 34), "q4_0": (2, 18)}
DTYPES = ("float32", "float16", "bfloat16")
KV_BITS = {16: "float16", 8: "q8_0", 4: "q4_0"}
# Off where exactness counts; on where values are packed, which the library does with it alone; elsewhere it chooses.
FLASH = {"float32": 0, "q8_0": 1, "q4_0": 1}
# Times the weights in memory: repacked for the CPU they are copies that cannot make way, and a machine should have
# room left to cache most of the file, or each start reads it from disk again.
REPACK = 1.7
SPARE = GB // 2  # for the interpreter and the libraries
GPU_SPARE = 3 * GB // 2  # of each GPU: scratch of the library and the screen
CHECKPOINTS = 4  # of the recurrent state, kept on the host
CONTEXT_SHARE = 0.25  # of what is free beside the weights, that a context of unasked length may take
MIN_CONTEXT = 4096


@dataclass(frozen=True, slots=True)
class Wishes:
    """What the user asked for. `gpu_layers`: layers on the GPU; `cpu_experts`: layers whose experts stay in memory;
    `dtype` or `kv_bits`: how keys and values are kept."""

    context: int | None = None
    dtype: str = "auto"
    gpu_layers: int | Auto = "auto"
    cpu_experts: int | Auto = "auto"
    threads: int | None = None
    kv_bits: int | None = None

    @property
    def cache(self) -> str:
        """The dtype of keys and values."""
        if self.kv_bits is not None:
            return KV_BITS[self.kv_bits]
        return "float16" if self.dtype == "auto" else self.dtype

    def __post_init__(self) -> None:
        for name in ("gpu_layers", "cpu_experts"):
            value = getattr(self, name)
            if value != "auto" and (isinstance(value, bool) or not isinstance(value, int) or value < 0):
                raise UsageError(f"{name} must be auto or a number of layers, not {value!r}", name)
        if self.threads is not None and (not isinstance(self.threads, int) or self.threads < 1):
            raise UsageError(f"threads must be at least 1, not {self.threads!r}", "threads")
        if self.dtype not in ("auto", *DTYPES):
            raise UsageError(f"dtype must be auto, {' or '.join(DTYPES)}, not {self.dtype!r}", "dtype")
        if self.kv_bits not in (None, *KV_BITS):
            raise UsageError(f"kv_bits must be {', '.join(map(str, KV_BITS))} or none, not {self.kv_bits!r}", "kv_bits")
        if self.kv_bits is not None and self.dtype != "auto":
            raise UsageError(
                f"dtype {self.dtype} and kv_bits {self.kv_bits} both say how llama.cpp keeps keys and values: give one",
                "kv_bits",
            )


@dataclass(frozen=True, slots=True)
class Plan:
    """How a file is loaded. Sizes in bytes; `cpu_experts` counts layers, from the first one."""

    context: int
    cache_type: int
    flash_attention: int  # -1 lets the library choose, 0 is off
    gpu_layers: int
    cpu_experts: int
    repack: bool
    threads: int
    batch: int
    memory: int
    gpu_memory: int
    session: int  # of `memory` and `gpu_memory`, what each further session takes again
    parts: Mapping[str, int]  # what `memory` and `gpu_memory` are for

    def __str__(self) -> str:
        where = f"{self.gpu_layers} layers on the GPU" if self.gpu_layers else "all on the CPU"
        experts = f", the experts of {self.cpu_experts} in memory" if self.gpu_layers and self.cpu_experts else ""
        sizes = f"{self.memory / GB:.2f} GB of memory" + (
            f" and {self.gpu_memory / GB:.2f} GB of the GPU" if self.gpu_memory else ""
        )
        return f"{where}{experts}; {sizes}; context {self.context}, {self.threads} threads"


def make_plan(model: GgufModel, machine: Machine, wishes: Wishes, vision: int = 0) -> Plan:
    """Fit `model` into `machine`, with a vision part of so many bytes.

    MemoryPlanError when it does not fit, UsageError when a wish cannot be met.
    """
    sizes = _Sizes.of(model, wishes.cache)
    fixed = sizes.fixed + vision
    room = machine.total - fixed - SPARE - len(machine.gpus) * GPU_SPARE
    context = _context(model, wishes.context, sizes, room)
    cache = context * sizes.token
    layers = model.layers
    gpu_layers = _asked(wishes.gpu_layers, layers + 1, "gpu_layers")
    experts = model.expert_bytes
    on_gpu = max(0, machine.gpu_memory - len(machine.gpus) * GPU_SPARE)
    dense = sizes.weights + vision - sum(experts)
    if gpu_layers is None:  # the output matrix counts as one
        gpu_layers = min(layers + 1, int(on_gpu / (dense + cache) * (layers + 1)))
    cpu_experts = _asked(wishes.cpu_experts, layers, "cpu_experts")
    if cpu_experts is None:
        cpu_experts = 0 if not gpu_layers else _experts_beside(experts, on_gpu - dense - cache)
    share = min(1.0, gpu_layers / (layers + 1))
    gpu_weights = round((dense + sum(experts[cpu_experts:])) * share)
    gpu_memory = gpu_weights + round(cache * share)
    memory = fixed + cache + SPARE - gpu_memory
    if memory > machine.memory or gpu_memory > machine.gpu_memory or memory + gpu_memory > machine.total:
        raise MemoryPlanError(_too_large(model, memory, gpu_memory, machine))
    return Plan(
        context=context,
        cache_type=CACHE_TYPES[wishes.cache][0],
        flash_attention=FLASH.get(wishes.cache, -1),
        gpu_layers=gpu_layers,
        cpu_experts=cpu_experts,
        repack=memory + (REPACK - 1) * (sizes.weights - gpu_memory) <= machine.memory,
        threads=wishes.threads or default_threads(machine.cores),
        batch=2048 if gpu_layers and cpu_experts else 512,  # experts in memory travel to the GPU once per batch
        memory=memory,
        gpu_memory=gpu_memory,
        session=cache + sizes.fixed - sizes.weights,
        parts={
            "weights in memory": sizes.weights + vision - gpu_weights,
            "weights on the GPU": gpu_weights,
            f"keys and values of {context} tokens": cache,
            f"recurrent state and {CHECKPOINTS} checkpoints": sizes.recurrent,
            "scratch and process": sizes.scratch + SPARE,
        },
    )


def default_threads(cores: int) -> int:
    """All physical cores but one, which the interface needs; small machines have none to spare."""
    return cores if cores <= 4 else cores - 1


@dataclass(frozen=True, slots=True)
class _Sizes:
    weights: int
    token: int  # of the KV cache
    recurrent: int  # state, and as much for each checkpoint
    scratch: int

    @property
    def fixed(self) -> int:
        """What does not grow with the context."""
        return self.weights + self.recurrent + self.scratch

    @classmethod
    def of(cls, model: GgufModel, dtype: str) -> "_Sizes":
        interval = model.number("full_attention_interval", 4)
        attention = sum((i + 1) % interval == 0 for i in range(model.layers))
        heads, head_dim = model.number("attention.head_count_kv"), model.number("attention.key_length")
        token = attention * heads * (head_dim + model.number("attention.value_length")) * CACHE_TYPES[dtype][1] // 32
        state, inner = model.number("ssm.state_size"), model.number("ssm.inner_size")
        channels = inner + 2 * model.number("ssm.group_count") * state
        recurrent = (model.layers - attention) * 4 * (state * inner + 3 * channels)
        scratch = 512 * 4 * (model.vocab_size + 16 * model.number("embedding_length"))
        return cls(model.trunk_bytes, token, (1 + CHECKPOINTS) * recurrent, scratch)


def _context(model: GgufModel, asked: int | None, sizes: _Sizes, room: float) -> int:
    most = model.number("context_length")
    if asked is not None:
        if isinstance(asked, bool) or not isinstance(asked, int) or not 1 <= asked <= most:
            raise UsageError(f"context must be from 1 to the model's {most} tokens, not {asked!r}", "context")
        return asked
    # The cache is allocated whole at once, so not more of it than memory allows with ease.
    easy = int(room * CONTEXT_SHARE / sizes.token) // 1024 * 1024
    return min(most, max(MIN_CONTEXT, easy))


def _asked(value: int | Auto, most: int, name: str) -> int | None:
    if value == "auto":
        return None
    if value > most:
        raise UsageError(f"{name} is {value} and the model has {most} of them", name)
    return value


def _experts_beside(experts: tuple[int, ...], room: float) -> int:
    """How many layers' experts must stay in memory so that the rest of them fit into `room` of the GPU."""
    for stay in range(len(experts) + 1):
        if sum(experts[stay:]) <= room:
            return stay
    return len(experts)


def _too_large(model: GgufModel, memory: int, gpu_memory: int, machine: Machine) -> str:
    shared = machine.unified
    need = f"{model.path.name} needs {(memory + shared * gpu_memory) / GB:.1f} GB of memory"
    have = f"{machine.memory / GB:.1f} GB are free"
    if gpu_memory and not shared:
        need += f" and {gpu_memory / GB:.1f} GB of the GPU"
        have += f" and {machine.gpu_memory / GB:.1f} GB"
    return f"{need}, {have}: take a smaller quantization or a shorter context"
