"""What the user chose, kept in one small JSON file."""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Self

from qwen35_local.engine import NON_THINKING, THINKING, Sampling
from qwen35_local.errors import UsageError

# "card" follows the model card for the mode; the others are fixed.
PRESETS: Mapping[str, Sampling | None] = {
    "card": None,
    "thinking": THINKING,
    "non-thinking": NON_THINKING,
    "precise": Sampling(temperature=0.0),
}
THEMES = ("qwen-dark", "qwen-light", "qwen-contrast", "ansi-dark", "ansi-light")


@dataclass(frozen=True, slots=True)
class Preferences:
    """`keys` maps names of bindings to keys of the user's choice."""

    theme: str = "qwen-dark"
    preset: str = "card"
    thinking: bool = True
    thinking_budget: int | None = None  # tokens; None is as many as the model wants
    preserve_thinking: bool = False  # of earlier questions
    tools: bool = False
    system: str = ""
    max_tokens: int | None = None
    stop: tuple[str, ...] = ()
    sampling: Mapping[str, float] = field(default_factory=dict)
    keys: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.preset not in PRESETS:
            raise UsageError(f"preset must be one of {', '.join(PRESETS)}, not {self.preset!r}", "preset")
        if self.theme not in THEMES:
            raise UsageError(f"theme must be one of {', '.join(THEMES)}, not {self.theme!r}", "theme")
        if self.thinking_budget is not None and self.thinking_budget < 0:
            raise UsageError(f"thinking_budget must be at least 0, not {self.thinking_budget}", "thinking_budget")
        if self.max_tokens is not None and self.max_tokens < 1:
            raise UsageError(f"max_tokens must be at least 1, not {self.max_tokens}", "max_tokens")
        if not all(isinstance(part, str) for pair in self.keys.items() for part in pair):
            raise UsageError("keys must map names to keys", "keys")
        Sampling(**self.sampling)  # type: ignore[arg-type]

    @property
    def chosen_sampling(self) -> Sampling | None:
        """None leaves it to the engine, which follows the model card."""
        preset = PRESETS[self.preset]
        if not self.sampling:
            return preset
        base = preset or (THINKING if self.thinking else NON_THINKING)
        return replace(base, **self.sampling)  # type: ignore[arg-type]

    @classmethod
    def load(cls, path: Path | None) -> tuple[Self, str]:
        """The stored choices, and a sentence if they could not be used; what this version does not know is ignored."""
        if path is None or not path.exists():
            return cls(), ""
        try:
            stored = json.loads(path.read_text())
            known = {name.name: stored[name.name] for name in fields(cls) if name.name in stored}
            known["stop"] = tuple(known.get("stop", ()))
            return cls(**known), ""
        except (OSError, ValueError, TypeError, AttributeError, UsageError) as error:
            return cls(), f"{path} is ignored ({error})"

    def save(self, path: Path | None) -> None:
        """Written whole or not at all. Options of the command line alone are not kept."""
        if path is None:
            return
        stored: dict[str, Any] = asdict(self)
        for passing in ("sampling", "stop", "max_tokens", "preserve_thinking"):
            del stored[passing]
        path.parent.mkdir(parents=True, exist_ok=True)
        new = path.with_name(f"{path.name}.{os.getpid()}.new")
        new.write_text(json.dumps(stored, indent=1, ensure_ascii=False))
        new.replace(path)
