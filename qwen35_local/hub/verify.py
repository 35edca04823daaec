"""Whether a model directory is what it should be: every byte against its manifest, every tensor against config.json."""

import hashlib
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from ..checkpoint.files import Checkpoint, TensorInfo
from ..checkpoint.names import canonical
from ..model.config import ModelConfig, Quantization
from .known import Known
from .manifest import Entry
from .progress import counted
from .wanted import PLAIN, head, tower, trunk

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
    findings = [
        Finding(
            "headers",
            True,
            f"{len(tensors)} tensors in {counted(files, 'file')}, without gap or overlap",
        )
    ]
    problems = list(tensor_problems(tensors, config))
    findings += [Finding("tensors", False, problem) for problem in problems[:20]]
    if not problems:
        extras = {"vision tower": "visual.", "MTP head": "mtp."}
        there = ", ".join(f"{'with' if has(tensors, names) else 'without'} the {x}" for x, names in extras.items())
        findings.append(Finding("tensors", True, f"every tensor of config.json is there, in its shape; {there}"))
    return findings


def has(tensors: Iterable[str], names: str) -> bool:
    """Whether there is a part of the model whose tensors begin so; text-only conversions keep its configuration."""
    return any(name.startswith(names) for name in tensors)


def tensor_problems(tensors: Mapping[str, TensorInfo], config: ModelConfig) -> Iterator[str]:
    """What is missing or misshapen; `tensors` by canonical name. Tower and MTP head may be absent, but not in part."""
    wanted = [trunk(config.text)]
    if has(tensors, "mtp."):
        wanted.append(head(config.text))
    if has(tensors, "visual."):
        if config.vision is None:
            yield "there is a vision tower, and no vision_config in config.json"
        else:
            wanted.append(tower(config.vision))
    for name, shape in chain.from_iterable(wanted):
        if name.endswith(PLAIN):
            if name not in tensors:
                yield f"{name} is missing"
            elif sorted(tensors[name].shape) != sorted(shape):  # convolutions come in two layouts
                yield f"{name} is {list(tensors[name].shape)}, config.json asks for {list(shape)}"
        else:
            yield from _matrix_problems(tensors, config, name, shape)


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
