"""Settings from outside: the environment is read here, once, and nowhere else."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self


@dataclass(frozen=True, slots=True)
class Settings:
    """`no_color`: the user wants no colours (https://no-color.org). `models`: where downloaded models are kept.
    `data`: chats and settings of the terminal app. `dumb`: the terminal cannot place its cursor.
    `graphics`: how it can show pictures."""

    no_color: bool = False
    models: Path = Path("~/.qwen35/models")
    data: Path = Path("~/.qwen35")
    dumb: bool = False
    graphics: str = "half cells"

    @classmethod
    def resolve(cls, environment: Mapping[str, str] | None = None) -> Self:
        env = os.environ if environment is None else environment
        return cls(
            no_color=bool(env.get("NO_COLOR")) or env.get("TERM") == "dumb",
            models=Path(env.get("QWEN35_MODELS") or "~/.qwen35/models").expanduser(),
            data=Path(env.get("QWEN35_DATA") or "~/.qwen35").expanduser(),
            dumb=env.get("TERM") in (None, "", "dumb", "unknown"),
            graphics=_graphics(env),
        )


def _graphics(env: Mapping[str, str]) -> str:
    """What the terminal says it can draw; a guess from its name, for `qwen35 doctor`."""
    term, program = env.get("TERM", ""), env.get("TERM_PROGRAM", "")
    if "kitty" in term or "ghostty" in term or program in ("ghostty", "WezTerm") or env.get("KITTY_WINDOW_ID"):
        return "kitty"
    if program in ("iTerm.app", "vscode") or term.startswith(("foot", "mlterm", "contour")):
        return "sixel"
    return "half cells"
