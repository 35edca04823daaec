"""What became of all mutants of a kernel, on record.

scripts/mutate_kernels.py finds it out; the default suite holds the record against the kernels as they are.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

from .equivalent import explained
from .mutants import FINDERS, Verdict, mutants_of

FOLDER = Path(__file__).resolve().parents[1] / "kernels" / "mutants"


def fingerprint(file: str) -> str:
    """Of the kernel's code and of the list of mistakes: of every mutant's text."""
    return hashlib.sha256("\0".join(mutant.text for mutant in mutants_of(file)).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Tally:
    """All mutants of one file: how many each check found, and those that none did."""

    file: str
    fingerprint: str
    found: dict[str, int]
    survivors: list[str]

    @classmethod
    def of(cls, file: str, verdicts: Sequence[Verdict]) -> Self:
        by = Counter(verdict.by for verdict in verdicts)
        survivors = [verdict.mutant for verdict in verdicts if not verdict.by]
        return cls(file, fingerprint(file), {name: by[name] for name in FINDERS}, survivors)

    @classmethod
    def read(cls, file: str) -> Self:
        return cls(**json.loads((FOLDER / f"{file}.json").read_text()))

    def write(self) -> None:
        FOLDER.mkdir(exist_ok=True)
        (FOLDER / f"{self.file}.json").write_text(json.dumps(asdict(self), indent=1) + "\n")

    @property
    def mutants(self) -> int:
        """Those that compile; the others are no test of the tests."""
        return sum(self.found.values()) - self.found["compiler"] + len(self.survivors)

    @property
    def rate(self) -> float:
        """The share of mutants that were found."""
        return 1 - len(self.survivors) / self.mutants

    @property
    def unexplained(self) -> list[str]:
        return [mutant for mutant in self.survivors if mutant.split(": ", 1)[1] not in explained(self.file)]


def table(tallies: Sequence[Tally]) -> str:
    """The record as Markdown; the last line adds up."""
    names = [name for name in FINDERS if name != "compiler"]
    lines = [
        "| kernel | do not compile | mutants | " + " | ".join(names) + " | found | survive, explained |",
        "| --- " * (len(names) + 5) + "|",
    ]
    rows = [
        [t.found["compiler"], t.mutants, *(t.found[n] for n in names), len(t.survivors), len(t.unexplained)]
        for t in tallies
    ]
    rows.append([sum(column) for column in zip(*rows, strict=True)])
    for name, (refused, mutants, *found, survive, unexplained) in zip(
        [*(t.file for t in tallies), "all"], rows, strict=True
    ):
        cells = [
            f"`{name}`",
            refused,
            mutants,
            *found,
            f"{1 - survive / mutants:.1%}",
            f"{survive}, {survive - unexplained}",
        ]
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines)
