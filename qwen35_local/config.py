"""Settings from outside: the environment is read here, once, and nowhere else."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self


@dataclass(frozen=True, slots=True)
class Settings:
    """`no_color`: the user wants no colours (https://no-color.org)."""

    no_color: bool = False

    @classmethod
    def resolve(cls, environment: Mapping[str, str] | None = None) -> Self:
        env = os.environ if environment is None else environment
        return cls(no_color=bool(env.get("NO_COLOR")) or env.get("TERM") == "dumb")
