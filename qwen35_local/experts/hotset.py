"""The experts that were in memory when an engine closed, to begin with next time: a small JSON file, advice only."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from .bank import LayerBank


def save(path: Path, banks: Sequence[LayerBank]) -> None:
    """Who is in the slots of every layer that is not complete, hottest first."""
    layers = {bank.layout.name: hottest(bank) for bank in banks if not bank.complete}
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(json.dumps({"version": 1, "layers": layers}))
    temporary.replace(path)


def hottest(bank: LayerBank) -> list[int]:
    return sorted((int(e) for e in bank.expert_in if e >= 0), key=lambda e: -bank.heat[e])


def load(path: Path) -> Mapping[str, list[int]]:
    """Layer names to experts; empty if there is no such file, or it is not one of ours: it only saves time."""
    try:
        saved = json.loads(path.read_bytes())
        layers = saved["layers"] if saved["version"] == 1 else {}
        return {str(name): [int(e) for e in experts] for name, experts in layers.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def begin(bank: LayerBank, experts: Sequence[int]) -> None:
    """Read the first of these experts into an empty bank, as many as it holds."""
    known = list(dict.fromkeys(e for e in experts if 0 <= e < bank.layout.experts))
    bank.fill(known[: bank.slots.count])
