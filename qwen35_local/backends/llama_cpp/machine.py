"""What this machine has: physical cores, memory that can be had, and the GPUs that llama.cpp sees."""

import ctypes
import os
import platform
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

GPU = 1  # ggml_backend_dev_type: a device with its own memory


@dataclass(frozen=True, slots=True)
class Machine:
    """Bytes of memory that are free for a model (file cache counts as free), bytes free on each GPU, physical cores."""

    memory: int
    gpus: tuple[int, ...]
    cores: int

    @property
    def gpu_memory(self) -> int:
        return sum(self.gpus)


def this_machine(ggml: Any) -> Machine:
    """`ggml` is the library's shared object."""
    return Machine(available_memory(), gpu_memory(ggml), physical_cores())


def available_memory() -> int:
    """Bytes that a process can still take, those of the file cache included; a container's limit counts."""
    if platform.system() == "Darwin":
        # Half of it is used by the system and other programs at most; the rest it hands over under pressure.
        return int(_sysctl("hw.memsize") * 0.75)
    free = next(
        int(line.split()[1]) * 1024
        for line in Path("/proc/meminfo").read_text().splitlines()
        if line.startswith("MemAvailable")
    )
    limit, used = (Path(f"/sys/fs/cgroup/memory.{name}") for name in ("max", "current"))
    if limit.exists() and (text := limit.read_text().strip()) != "max":
        return min(free, max(0, int(text) - int(used.read_text())))
    return free


def physical_cores() -> int:
    """Cores, not hyperthreads; those of a restricted process only."""
    if platform.system() == "Darwin":
        return _sysctl("hw.perflevel0.physicalcpu")
    cores = set()
    for cpu in sorted(os.sched_getaffinity(0)):
        siblings = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")
        cores.add(siblings.read_text() if siblings.exists() else str(cpu))
    return max(1, len(cores))


def _sysctl(name: str) -> int:
    return int(subprocess.run(["sysctl", "-n", name], capture_output=True, text=True, check=True).stdout)


def gpu_memory(ggml: Any) -> tuple[int, ...]:
    """Free bytes of each GPU."""
    ggml.ggml_backend_dev_count.restype = ctypes.c_size_t
    ggml.ggml_backend_dev_get.restype = ctypes.c_void_p
    free, total, found = ctypes.c_size_t(), ctypes.c_size_t(), []
    for index in range(ggml.ggml_backend_dev_count()):
        device = ctypes.c_void_p(ggml.ggml_backend_dev_get(ctypes.c_size_t(index)))
        if ggml.ggml_backend_dev_type(device) == GPU:
            ggml.ggml_backend_dev_memory(device, ctypes.byref(free), ctypes.byref(total))
            found.append(free.value)
    return tuple(found)
