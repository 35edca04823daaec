"""Settings from outside. The environment is read here, once, and nowhere else."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from .errors import UsageError

KERNELS = ("auto", "metal", "reference")
WORKERS = 8  # a queue of 8 expert-sized reads fills every SSD measured; more threads add nothing


@dataclass(frozen=True, slots=True)
class Streaming:
    """How experts that do not fit the memory are read from disk: past the page cache (`direct`) or through it, with how
    many threads, and how many of a layer ahead of their use (`lookahead`, 0 is off).

    `store` is the packed store to read from; by default `experts` in the model directory, if it is there. `hot_set` is
    a file that remembers the experts in memory from one engine to the next; None begins empty. `layer_stats` adds every
    layer's numbers to the statistics of an answer. `elastic` gives memory back while the machine runs short of it.
    """

    direct: bool = False
    workers: int = WORKERS
    lookahead: int = 2
    store: Path | None = None
    hot_set: Path | None = None
    layer_stats: bool = False
    elastic: bool = True

    def __post_init__(self) -> None:
        for name, least in (("workers", 1), ("lookahead", 0)):
            value = getattr(self, name)
            if not isinstance(value, int) or not least <= value <= 64:
                raise UsageError(f"{name} must be from {least} to 64, not {value!r}", name)


@dataclass(frozen=True, slots=True)
class Settings:
    """`no_color`: the user wants no colours (https://no-color.org). `models`: where downloaded models are kept.
    `data`: chats and settings of the terminal app. `dumb`: the terminal cannot place its cursor.
    `graphics`: how it can show pictures. `web`: a browser shows the app, through textual-serve. `kernels`: which run on
    Metal, the fastest verified (auto), ours if verified (metal), or MLX's operations only (reference)."""

    no_color: bool = False
    models: Path = Path("~/.qwen35/models")
    data: Path = Path("~/.qwen35")
    dumb: bool = False
    graphics: str = "half cells"
    web: bool = False
    kernels: str = "auto"

    @classmethod
    def resolve(cls, environment: Mapping[str, str] | None = None) -> Self:
        env = os.environ if environment is None else environment
        return cls(
            no_color=bool(env.get("NO_COLOR")) or env.get("TERM") == "dumb",
            models=Path(env.get("QWEN35_MODELS") or "~/.qwen35/models").expanduser(),
            data=Path(env.get("QWEN35_DATA") or "~/.qwen35").expanduser(),
            dumb=env.get("TERM") in (None, "", "dumb", "unknown"),
            graphics=_graphics(env),
            web="web_driver" in env.get("TEXTUAL_DRIVER", ""),
            kernels=_kernels(env.get("QWEN35_KERNELS") or "auto"),
        )


def _kernels(asked: str) -> str:
    if asked not in KERNELS:
        raise UsageError(f"QWEN35_KERNELS must be {', '.join(KERNELS[:-1])} or {KERNELS[-1]}, not {asked!r}")
    return asked


def _graphics(env: Mapping[str, str]) -> str:
    """What the terminal says it can draw; a guess from its name, for `qwen35 doctor`."""
    term, program = env.get("TERM", ""), env.get("TERM_PROGRAM", "")
    if env.get("TMUX") or term.startswith(("screen", "tmux")):  # what is outside is not what is inside
        return "half cells"
    if "kitty" in term or "ghostty" in term or program in ("ghostty", "WezTerm") or env.get("KITTY_WINDOW_ID"):
        return "kitty"
    if program in ("iTerm.app", "vscode") or term.startswith(("foot", "mlterm", "contour")):
        return "sixel"
    return "half cells"
