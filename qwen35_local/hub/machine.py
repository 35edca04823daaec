"""What this machine is: chip, memory, graphics card. Read once, handed around as a value."""

import os
import platform
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Kind = Literal["apple", "cuda", "cpu"]


@dataclass(frozen=True, slots=True)
class Machine:
    """`memory` and `gpu_memory` in bytes; Apple's memory is one, so its `gpu_memory` is 0."""

    kind: Kind
    chip: str
    memory: int
    gpu_memory: int = 0

    def __str__(self) -> str:
        card = f" + {self.gpu_memory / 2**30:.0f} GiB on the card" if self.gpu_memory else ""
        return f"{self.chip}, {self.memory / 2**30:.0f} GiB{card}"


def this_machine() -> Machine:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if sys.platform == "darwin" and platform.machine() == "arm64":
        return Machine(
            "apple", _command("/usr/sbin/sysctl", "-n", "machdep.cpu.brand_string") or "Apple Silicon", memory
        )
    card = _nvidia()
    return Machine("cuda", card[0], memory, card[1]) if card else Machine("cpu", _processor(), memory)


def _nvidia() -> tuple[str, int] | None:
    """Name and memory of the cards together."""
    if shutil.which("nvidia-smi") is None:
        return None
    rows = _command("nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader,nounits").splitlines()
    cards = [row.rsplit(",", 1) for row in rows if row.count(",")]
    try:
        return cards[0][0].strip(), sum(int(mebibytes) for _, mebibytes in cards) << 20
    except (IndexError, ValueError):
        return None


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def _command(*words: str) -> str:
    try:
        return subprocess.run(words, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""
