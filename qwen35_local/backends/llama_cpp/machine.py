"""What this machine has: physical cores, memory that can be had, and the GPUs that llama.cpp sees."""

import ctypes
import os
import platform
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...experts.host import available_memory

GPU = 1  # ggml_backend_dev_type: a device with its own memory


@dataclass(frozen=True, slots=True)
class Machine:
    """Bytes of memory that are free for a model (file cache counts as free), bytes free on each GPU, physical cores.

    `unified`: the GPU's bytes are some of the memory's.
    """

    memory: int
    gpus: tuple[int, ...]
    cores: int
    unified: bool = False

    @property
    def gpu_memory(self) -> int:
        return sum(self.gpus)

    @property
    def total(self) -> int:
        """Bytes free in all."""
        return self.memory if self.unified else self.memory + self.gpu_memory


def this_machine(ggml: Any) -> Machine:
    """`ggml` is the library's shared object."""
    unified = platform.system() == "Darwin" and platform.machine() == "arm64"
    return Machine(available_memory(), gpu_memory(ggml), physical_cores(), unified)


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
