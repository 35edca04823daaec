"""The models that the app can change to; `commands/chat.py` finds them and says how each is opened."""

from collections.abc import Callable
from dataclasses import dataclass

from qwen35_local.bridge import OpenEngine


@dataclass(frozen=True, slots=True)
class ModelChoice:
    """`about` is a few words: its size, where it is."""

    name: str
    about: str
    open: OpenEngine


FindModels = Callable[[], list[ModelChoice]]
