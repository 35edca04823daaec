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
    """Bytes that can be taken without pushing anything out; half of the total where the system does not say."""
    try:
        if sys.platform == "darwin":
            text = subprocess.run(["vm_stat"], capture_output=True, text=True, timeout=5, check=True).stdout
            return mac_available(text)
        match = re.search(r"^MemAvailable:\s+(\d+) kB", Path("/proc/meminfo").read_text(), re.MULTILINE)
        if match:
            return int(match[1]) * 1024
    except (OSError, subprocess.SubprocessError, ValueError):
        pass
    return total_memory() // 2


def mac_available(vm_stat: str) -> int:
    """Bytes from the text of `vm_stat`: pages that are free, or can be taken back without writing."""
    page = int(match[1]) if (match := re.search(r"page size of (\d+) bytes", vm_stat)) else 16384
    pages = {name: int(count) for name, count in re.findall(r"^Pages ([\w ]+):\s+(\d+)\.", vm_stat, re.MULTILINE)}
    if "free" not in pages:
        raise ValueError("vm_stat says nothing of free pages")
    return page * sum(pages.get(name, 0) for name in ("free", "inactive", "speculative", "purgeable"))
