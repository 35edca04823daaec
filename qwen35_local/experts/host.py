"""How much memory this machine has, and how much of it is free now. Standard library only."""

import os
import re
import subprocess
import sys
from pathlib import Path


def total_memory() -> int:
    """Bytes of physical memory."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def available_memory() -> int:
    """Bytes that can be taken without pushing anything out, within the limit of a container if there is one; half of
    the total where the system does not say."""
    try:
        if sys.platform == "darwin":
            text = subprocess.run(["vm_stat"], capture_output=True, text=True, timeout=5, check=True).stdout
            return mac_available(text)
        match = re.search(r"^MemAvailable:\s+(\d+) kB", Path("/proc/meminfo").read_text(), re.MULTILINE)
        if match:
            return min(int(match[1]) * 1024, container_room(Path("/sys/fs/cgroup")))
    except (OSError, subprocess.SubprocessError, ValueError):
        pass
    return total_memory() // 2


def container_room(group: Path) -> int:
    """Bytes that a control group (version 2) has left; its file cache counts as left, since it makes way."""
    try:
        limit, used = ((group / f"memory.{name}").read_text().strip() for name in ("max", "current"))
        cache = re.findall(r"^(?:in)?active_file (\d+)$", (group / "memory.stat").read_text(), re.MULTILINE)
    except OSError:
        return sys.maxsize
    return sys.maxsize if limit == "max" else max(0, int(limit) - int(used) + sum(map(int, cache)))


def mac_available(vm_stat: str) -> int:
    """Bytes from the text of `vm_stat`: pages that are free, or can be taken back without writing."""
    page = int(match[1]) if (match := re.search(r"page size of (\d+) bytes", vm_stat)) else 16384
    pages = {name: int(count) for name, count in re.findall(r"^Pages ([\w ]+):\s+(\d+)\.", vm_stat, re.MULTILINE)}
    if "free" not in pages:
        raise ValueError("vm_stat says nothing of free pages")
    return page * sum(pages.get(name, 0) for name in ("free", "inactive", "speculative", "purgeable"))
