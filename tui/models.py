"""The models that the app can change to; `commands/chat.py` finds them and says how each is opened."""

from collections.abc import Callable
from dataclasses import dataclass

from qwen35_local.bridge import OpenEngine
from qwen35_local.engine import EngineInfo


@dataclass(frozen=True, slots=True)
class ModelChoice:
    """`about` is a few words: its size, where it is. `served`: a server has it loaded."""

    name: str
    about: str
    open: OpenEngine
    served: bool = False

    def is_open(self, info: EngineInfo | None) -> bool:
        """Whether this is the one that answers now."""
        return info is not None and self.name == info.model and self.served == (info.backend == "remote")


FindModels = Callable[[], list[ModelChoice]]
