"""How short of memory the machine is now. Standard library only, and cheap: it is asked every second."""

import ctypes
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

TIGHT, CRITICAL = 0.06, 0.03  # of the memory is left
STALLED, WATCHED = 10.0, 0.15  # per cent of time in which tasks wait for memory; counted below so much left
MAC_LEVELS: dict[int, Literal[0, 1, 2]] = {1: 0, 2: 1, 4: 2}


@dataclass(frozen=True, slots=True)
class Pressure:
    """`level` 0: enough, 1: short, 2: critical. `free`: bytes to be had without pushing anything out, if known."""

    level: Literal[0, 1, 2]
    free: int | None = None


def read_pressure() -> Pressure:
    """Of this machine; where the system does not say, there is enough."""
    try:
        if sys.platform == "darwin":
            return Pressure(MAC_LEVELS.get(_sysctl("kern.memorystatus_vm_pressure_level"), 0))
        psi = Path("/proc/pressure/memory")
        return linux_pressure(Path("/proc/meminfo").read_text(), psi.read_text() if psi.exists() else "")
    except (OSError, AttributeError, ValueError):
        return Pressure(0)


def linux_pressure(meminfo: str, psi: str) -> Pressure:
    """From the texts of /proc/meminfo and /proc/pressure/memory (which not every kernel has).

    Waiting alone is no shortage: expert files read through the page cache push one another out of it, and the kernel
    counts that as waiting for memory. It counts only when little is left too.
    """
    sizes = {
        name: int(kilobytes) * 1024 for name, kilobytes in re.findall(r"^(\w+):\s+(\d+) kB", meminfo, re.MULTILINE)
    }
    free, total = sizes.get("MemAvailable"), sizes.get("MemTotal")
    if not free or not total:
        return Pressure(0)
    waits = {kind: float(share) for kind, share in re.findall(r"^(some|full) avg10=([\d.]+)", psi, re.MULTILINE)}
    watched = free < WATCHED * total
    if free < CRITICAL * total or (watched and waits.get("full", 0.0) >= STALLED):
        return Pressure(2, free)
    if free < TIGHT * total or (watched and waits.get("some", 0.0) >= STALLED):
        return Pressure(1, free)
    return Pressure(0, free)


def _sysctl(name: str) -> int:
    value, size = ctypes.c_int(0), ctypes.c_size_t(4)
    if ctypes.CDLL(None).sysctlbyname(name.encode(), ctypes.byref(value), ctypes.byref(size), None, ctypes.c_size_t(0)):
        raise OSError(f"no sysctl {name}")
    return value.value
