"""Which builds of the model there are, and which one a machine should have. Values; the Hub is asked elsewhere.

Sizes are what the Hub listed when this was written and decide only what is offered: the plan lists the files anew.
"""

from dataclasses import dataclass
from typing import Literal

from ..errors import StorageError, UsageError
from .machine import Machine
from .place import MARGIN

GB = 10**9
How = Literal["mlx", "convert", "gguf"]
SYSTEM = 8 * GB  # of memory, left to the operating system and a browser
WORK = 4 * GB  # state, KV cache of a long chat and buffers, beside the weights
STREAMED_FLOOR = 14 * GB  # of memory with the 397B's experts on disk: trunk, a few slots, work


@dataclass(frozen=True, slots=True)
class Build:
    """One build: where its files are and how it runs. Bytes: `stored` on this disk, `fetched` over the network."""

    model: str
    name: str
    how: How
    repo: str
    stored: int
    fetched: int
    include: tuple[str, ...] = ()
    quant: str = ""

    @property
    def full_name(self) -> str:
        return f"{self.model}:{self.name}"

    @property
    def directory(self) -> str:
        stem = self.repo.split("/")[1]
        return stem if self.how == "mlx" else f"{stem}-{self.name}"

    @property
    def runs_with(self) -> str:
        return "llama.cpp" if self.how == "gguf" else "MLX"


def _gguf(model: str, repo: str, sizes: dict[str, float], files: str = "{}/*") -> list[Build]:
    """`files` is where a quant is: split in a directory of its own, or one file beside the others."""
    return [
        Build(model, quant, "gguf", repo, round(gb * GB), round(gb * GB), (files.format(quant), "mmproj-F16.gguf"))
        for quant, gb in sizes.items()
    ]


_GGUF_397B = {
    "UD-IQ2_XXS": 114.9, "UD-IQ2_M": 123.1, "UD-IQ3_XXS": 140.3, "UD-IQ3_S": 146.4, "Q3_K_M": 177.4,
    "UD-Q3_K_XL": 178.7,
    "UD-IQ4_XS": 189.7, "Q4_K_S": 228.0, "MXFP4_MOE": 237.4, "UD-Q4_K_XL": 245.3, "UD-Q5_K_XL": 294.9, "Q6_K": 326.6,
    "Q8_0": 421.5,
}  # fmt: skip
_GGUF_35B = {"UD-Q2_K_XL": 13.2, "UD-Q3_K_XL": 17.9, "UD-Q4_K_XL": 23.1, "Q8_0": 37.8}
RELEASES = {"397b": "Qwen/Qwen3.5-397B-A17B", "122b": "Qwen/Qwen3.5-122B-A10B", "35b": "Qwen/Qwen3.5-35B-A3B"}
RELEASE = RELEASES["397b"]
BUILDS: tuple[Build, ...] = (
    Build("397b", "4bit", "mlx", "mlx-community/Qwen3.5-397B-A17B-4bit", round(223.9 * GB), round(223.9 * GB)),
    Build("397b", "mxfp4", "convert", RELEASE, round(215.1 * GB), 807 * GB, quant="mxfp4"),
    Build("397b", "mixed", "convert", RELEASE, round(220.6 * GB), 807 * GB, quant="mixed"),
    *_gguf("397b", "unsloth/Qwen3.5-397B-A17B-GGUF", _GGUF_397B),
    Build("122b", "4bit", "mlx", "mlx-community/Qwen3.5-122B-A10B-4bit", round(69.6 * GB), round(69.6 * GB)),
    *_gguf("122b", "unsloth/Qwen3.5-122B-A10B-GGUF", {"Q4_K_M": 76.0, "Q4_K_S": 71.7}),
    Build("35b", "4bit", "mlx", "mlx-community/Qwen3.5-35B-A3B-4bit", round(20.4 * GB), round(20.4 * GB)),
    Build("35b", "8bit", "mlx", "mlx-community/Qwen3.5-35B-A3B-8bit", round(37.7 * GB), round(37.7 * GB)),
    *_gguf("35b", "unsloth/Qwen3.5-35B-A3B-GGUF", _GGUF_35B, "*-{}.gguf"),
)
MODELS = tuple(dict.fromkeys(build.model for build in BUILDS))


def release_of(name: str) -> str:
    """The bfloat16 release of a model, for a recipe of the user's own. Raises UsageError."""
    model, _, wanted = name.lower().partition(":")
    if wanted:
        raise UsageError(f"{name} names a build, and --quant another packing: use `{model} --quant …`", "quant")
    if model not in RELEASES:
        raise UsageError(f"no model {name!r} in the catalogue: choose {', '.join(MODELS)}, or use --repo OWNER/NAME")
    return RELEASES[model]


def find_build(name: str, machine: Machine, free: int) -> Build:
    """The build that `397b:mxfp4` or `397b` means here. Raises UsageError or StorageError, the latter with advice."""
    model, _, wanted = name.lower().partition(":")
    if model not in MODELS:
        raise UsageError(f"no model {name!r} in the catalogue: choose {', '.join(MODELS)}, or use --repo OWNER/NAME")
    if not wanted:
        return choose(model, machine, free)
    builds = [build for build in BUILDS if build.model == model]
    found = [build for build in builds if build.name.lower() == wanted]
    if not found:
        raise UsageError(f"{model} has no build {wanted!r}: choose {', '.join(build.name for build in builds)}")
    return found[0]


def choose(model: str, machine: Machine, free: int) -> Build:
    """The best build of `model` that runs here; `free` is bytes of disk. Refuses with what would fit instead."""
    if (best := _best(model, machine, free)) is not None:
        return best
    suited = [build for build in BUILDS if build.model == model and _suits(build, machine)]
    able = [build for build in suited if runs(build, machine)]
    if able:
        need = min(build.stored for build in able if build.how != "convert") + MARGIN
        problem = f"the smallest build for it needs {need / GB:.0f} GB of disk, {free / GB:.0f} GB are free"
    else:
        need = min(memory_needed(build) for build in suited)
        problem = f"the smallest build for it needs {need / GB:.0f} GB of memory, it has {_memory(machine) / GB:.0f} GB"
    raise StorageError(f"{model} does not fit this machine ({machine}): {problem}.{_instead(model, machine, free)}")


def _best(model: str, machine: Machine, free: int) -> Build | None:
    """The largest that fits and comes as it is stored; a conversion fetches four times as much, so only by name."""
    fitting = [b for b in BUILDS if b.model == model and b.how != "convert" and obstacle(b, machine, free) is None]
    return max((b for b in fitting if _suits(b, machine)), key=lambda build: build.stored, default=None)


def _instead(model: str, machine: Machine, free: int) -> str:
    """What would run here: a smaller sibling, and where MLX has only a CPU, what it would stream from disk."""
    smaller = [other for other in MODELS[MODELS.index(model) + 1 :] if _best(other, machine, free) is not None]
    advice = [f"`qwen35 download {smaller[0]}` would fit"] if smaller else []
    slow = [
        build
        for build in BUILDS
        if build.how == "mlx" and (build.model == model or not smaller) and obstacle(build, machine, free) is None
    ]
    if slow and machine.kind != "apple":
        least = min(slow, key=lambda build: (build.model != model, build.stored))
        advice.append(f"`qwen35 download {least.full_name}` would run on the CPU by MLX, slowly")
    return f" {'; '.join(advice)}" if advice else ""


def obstacle(build: Build, machine: Machine, free: int) -> Literal["memory", "disk"] | None:
    """What this machine with `free` bytes of disk has too little of for a build."""
    if memory_needed(build) > _memory(machine):
        return "memory"
    return "disk" if build.stored + MARGIN > free else None


def too_small(build: Build, machine: Machine) -> str | None:
    """That a build needs more memory than there is, with both numbers."""
    need, have = memory_needed(build), _memory(machine)
    if need <= have:
        return None
    return f"{build.full_name} needs {need / GB:.0f} GB of memory, this machine ({machine}) has {have / GB:.0f} GB"


def _suits(build: Build, machine: Machine) -> bool:
    """MLX on Apple, llama.cpp elsewhere. (MLX on a Linux CPU works and is slow: by name only.)"""
    return (build.how == "gguf") != (machine.kind == "apple")


def memory_needed(build: Build) -> int:
    """Bytes of memory that a build needs to be of use: all of it in llama.cpp, with experts on disk in MLX."""
    if build.how == "gguf":
        return build.stored + SYSTEM + WORK
    return min(STREAMED_FLOOR, build.stored // 8 + WORK)


def _memory(machine: Machine) -> int:
    return machine.memory + machine.gpu_memory


def runs(build: Build, machine: Machine) -> bool:
    return _suits(build, machine) and memory_needed(build) <= _memory(machine)
