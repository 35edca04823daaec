"""Whether a model directory is what it should be: every byte against its manifest, every tensor against config.json."""

import hashlib
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from ..checkpoint.files import Checkpoint, TensorInfo
from ..checkpoint.names import canonical
from ..model.config import FULL, ModelConfig, Quantization, TextConfig
from .known import Known
from .manifest import Entry

BLOCK = 8 << 20
READERS = 4


@dataclass(frozen=True, slots=True)
class Finding:
    """One check: `ok` None when it could not be made, with the reason."""

    check: str
    ok: bool | None
    detail: str


def check_files(path: Path, known: Known | None, on_bytes: Callable[[int], None]) -> list[Finding]:
    """Sizes and hashes of every file that `known` names; `on_bytes` hears of bytes from several threads."""
    if known is None:
        return [Finding("hashes", None, "nobody left word of what these files should hash to")]
    stop = threading.Event()

    def check(item: tuple[str, Entry]) -> str | None:
        return None if stop.is_set() else _problem(path, *item, on_bytes)

    with ThreadPoolExecutor(READERS) as pool:
        try:
            problems = [p for p in pool.map(check, sorted(known.files.items())) if p]
        except BaseException:
            stop.set()
            raise
    if problems:
        return [Finding("hashes", False, problem) for problem in problems]
    return [Finding("hashes", True, f"{len(known.files)} files are what {known.origin} says they should be")]


def _problem(path: Path, name: str, entry: Entry, on_bytes: Callable[[int], None]) -> str | None:
    file = path / name
    hasher = hashlib.sha256() if entry.kind == "sha256" else hashlib.sha1(b"blob %d\x00" % entry.size)
    try:
        if (size := file.stat().st_size) != entry.size:
            return f"{name} has {size} bytes, it should have {entry.size}"
        with file.open("rb") as data:
            while block := data.read(BLOCK):
                hasher.update(block)
                on_bytes(len(block))
    except FileNotFoundError:
        return f"{name} is missing"
    except OSError as error:
        return f"{name} cannot be read: {error.strerror}"
    if hasher.hexdigest() != entry.digest:
        return f"{name} is damaged: its hash is {hasher.hexdigest()[:16]}…, it should be {entry.digest[:16]}…"
    return None


def check_tensors(path: Path) -> list[Finding]:
    """Headers, and every tensor that config.json asks for. Raises what opening the directory would raise."""
    checkpoint = Checkpoint.open(path)
    config = ModelConfig.from_dict(checkpoint.config)
    tensors = {canonical(name): tensor for name, tensor in checkpoint.tensors.items()}
    files = len({tensor.file for tensor in tensors.values()})
    findings = [Finding("headers", True, f"{len(tensors)} tensors in {files} files, without gap or overlap")]
    problems = list(tensor_problems(tensors, config))
    findings += [Finding("tensors", False, problem) for problem in problems[:20]]
    if not problems:
        findings.append(Finding("tensors", True, "every tensor that config.json asks for is there, in its shape"))
    return findings


def tensor_problems(tensors: Mapping[str, TensorInfo], config: ModelConfig) -> Iterator[str]:
    """What is missing or misshapen; `tensors` by canonical name."""
    for name, shape in vectors(config.text):
        if name not in tensors:
            yield f"{name} is missing"
        elif sorted(tensors[name].shape) != sorted(shape):
            yield f"{name} is {list(tensors[name].shape)}, config.json asks for {list(shape)}"
    for module, shape in matrices(config.text):
        yield from _matrix_problems(tensors, config, module, shape)


def _matrix_problems(
    tensors: Mapping[str, TensorInfo], config: ModelConfig, module: str, shape: tuple[int, ...]
) -> Iterator[str]:
    for name, part_shape in _spellings(tensors, module, shape):
        q = config.quantization.of(name) if config.quantization and f"{name}.scales" in tensors else None
        weight = tensors.get(f"{name}.weight") or tensors.get(name)
        if weight is None:
            yield f"{name} is missing"
            continue
        for suffix, want in _shapes(part_shape, q):
            tensor = weight if suffix == "weight" else tensors.get(f"{name}.{suffix}")
            if tensor is None:
                yield f"{name}.{suffix} is missing"
            elif tensor.shape != want:
                yield f"{tensor.name} is {list(tensor.shape)}, config.json asks for {list(want)}"


def _spellings(
    tensors: Mapping[str, TensorInfo], module: str, shape: tuple[int, ...]
) -> Iterator[tuple[str, tuple[int, ...]]]:
    """The modules that a layout uses for one of ours: experts are fused, stacked or apart."""
    if not module.endswith((".experts.gate_up_proj", ".experts.down_proj")):
        yield module, shape
        return
    if module in tensors or f"{module}.weight" in tensors:
        yield module, shape
        return
    stem, part = module.rsplit(".experts.", 1)
    E, rows, columns = shape
    halves = ("gate_proj", "up_proj") if part == "gate_up_proj" else ("down_proj",)
    for half in halves:
        if f"{stem}.experts.0.{half}.weight" in tensors:
            yield from ((f"{stem}.experts.{e}.{half}", (rows // len(halves), columns)) for e in range(E))
        else:
            yield f"{stem}.switch_mlp.{half}", (E, rows // len(halves), columns)


def _shapes(shape: tuple[int, ...], q: Quantization | None) -> Iterator[tuple[str, tuple[int, ...]]]:
    if q is None:
        yield "weight", shape
        return
    *lead, columns = shape
    yield "weight", (*lead, columns * q.bits // 32)
    yield "scales", (*lead, columns // q.group_size)
    if q.has_biases:
        yield "biases", (*lead, columns // q.group_size)


def matrices(c: TextConfig) -> Iterator[tuple[str, tuple[int, ...]]]:
    """(canonical module, [.., out, in]) of every matrix of the language model."""
    H, E, I, S = c.hidden_size, c.num_experts, c.moe_intermediate_size, c.shared_expert_intermediate_size  # noqa: E741
    values = c.linear_num_value_heads * c.linear_value_head_dim
    heads, kv = c.num_attention_heads * c.head_dim, c.num_key_value_heads * c.head_dim
    yield "embed_tokens", (c.vocab_size, H)
    for i, kind in enumerate(c.layer_types):
        if kind == FULL:
            attention = f"layers.{i}.self_attn"
            yield from ((f"{attention}.q_proj", (2 * heads, H)), (f"{attention}.k_proj", (kv, H)))
            yield from ((f"{attention}.v_proj", (kv, H)), (f"{attention}.o_proj", (H, heads)))
        else:
            delta = f"layers.{i}.linear_attn"
            yield from ((f"{delta}.in_proj_qkv", (c.conv_dim, H)), (f"{delta}.in_proj_z", (values, H)))
            yield from ((f"{delta}.in_proj_{x}", (c.linear_num_value_heads, H)) for x in "ab")
            yield f"{delta}.out_proj", (H, values)
        mlp = f"layers.{i}.mlp"
        yield from ((f"{mlp}.gate", (E, H)), (f"{mlp}.shared_expert_gate", (1, H)))
        yield from ((f"{mlp}.shared_expert.{x}_proj", (S, H)) for x in ("gate", "up"))
        yield f"{mlp}.shared_expert.down_proj", (H, S)
        yield from ((f"{mlp}.experts.gate_up_proj", (E, 2 * I, H)), (f"{mlp}.experts.down_proj", (E, H, I)))
    if not c.tie_word_embeddings:
        yield "lm_head", (c.vocab_size, H)


def vectors(c: TextConfig) -> Iterator[tuple[str, tuple[int, ...]]]:
    """(canonical tensor, shape) of everything that is not a matrix; convolutions in either layout."""
    for i, kind in enumerate(c.layer_types):
        layer = f"layers.{i}"
        yield from ((f"{layer}.{x}_layernorm.weight", (c.hidden_size,)) for x in ("input", "post_attention"))
        if kind == FULL:
            yield from ((f"{layer}.self_attn.{x}_norm.weight", (c.head_dim,)) for x in "qk")
        else:
            delta = f"{layer}.linear_attn"
            yield f"{delta}.conv1d.weight", (c.conv_dim, 1, c.linear_conv_kernel_dim)
            yield from ((f"{delta}.{x}", (c.linear_num_value_heads,)) for x in ("A_log", "dt_bias"))
            yield f"{delta}.norm.weight", (c.linear_value_head_dim,)
    yield "norm.weight", (c.hidden_size,)
