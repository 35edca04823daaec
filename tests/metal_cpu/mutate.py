"""Small mistakes in kernel text, made one at a time: a test that cannot tell them from the truth is too weak."""

import re
from dataclasses import dataclass
from itertools import pairwise

from .source import strip_comments

# (pattern, replacements); the first group, or all of the match, is replaced
MISTAKES: list[tuple[str, list[str]]] = [
    (r"(?<![+\-*/<>=&|^ ] )(?<=[\w)\]] )([+]) ", ["-"]),
    (r"(?<=[\w)\]] )(-) ", ["+"]),
    (r"(?<=[\w)\]] )(\*) (?=[\w(])", ["+"]),
    (r"(?<=[\w)\]] )(/) ", ["*"]),
    (r"(?<=[\w)\]] )(%) ", ["/"]),
    (r" (\+=) ", ["-=", "="]),
    (r" (-=) ", ["+="]),
    (r" (\*=) ", ["="]),
    (r"(?<=[\w)\]] )(<) (?=[\w(])", ["<="]),
    (r" (<=) ", ["<"]),
    (r" (>) ", [">="]),
    (r" (==) ", ["!="]),
    (r" (!=) ", ["=="]),
    (r" (&&) ", ["||"]),
    (r" (\|\|) ", ["&&"]),
    (r" (<<) ", [">>"]),
    (r" (>>) ", ["<<"]),
    (r" (&) (?=[\w])", ["|"]),
    (r" (\|) ", ["&"]),
    (r"(?<![\w.\[<x])(\d+)(?=[u;,)\] ])(?![.\w]*f)", ["+1"]),  # integer literals
    (r"(?<![\w.])(\d+\.\d+f)", ["0.5f"]),
    (r"\b(simd_max|simd_min)\b", ["swap"]),
    (r"\b(true|false)\b", ["swap"]),
    (r"\b(simd_sum)\(", [""]),
    (r"^ *((?:threadgroup|simdgroup)_barrier\([^;]*;)", [""]),
    (r"\b(return|break|continue);", [""]),
]
SWAPPED = {"simd_max": "simd_min", "simd_min": "simd_max", "true": "false", "false": "true"}


@dataclass(frozen=True)
class Mutant:
    """A kernel text with one mistake, and the line that has it, before and after."""

    text: str
    line: int
    before: str
    after: str

    def __str__(self) -> str:
        return f"line {self.line}: {self.before.strip()}  ->  {self.after.strip()}"


def mutants(text: str) -> list[Mutant]:
    """Every mistake of the list at every place of the code; comments, names of kernels and constants stay."""
    code = strip_comments(text)
    starts = [0, *(m.end() for m in re.finditer("\n", code)), len(code) + 1]
    found: dict[str, Mutant] = {}
    for pattern, replacements in MISTAKES:
        for match in re.finditer(pattern, code, re.M):
            group = 1 if match.re.groups else 0
            line = next(i for i, (a, b) in enumerate(pairwise(starts), 1) if a <= match.start(group) < b)
            if code[starts[line - 1] :].startswith(("constant constexpr", "template")):
                continue
            for replacement in replacements:
                old = match.group(group)
                new = (
                    SWAPPED[old] if replacement == "swap" else str(int(old) + 1) if replacement == "+1" else replacement
                )
                changed = _replaced(text, code, match.start(group), match.end(group), new)
                before, after = (t.splitlines()[line - 1] for t in (text, changed))
                found[changed] = Mutant(changed, line, before, after)
    return sorted(found.values(), key=lambda m: m.line)


def _replaced(text: str, code: str, start: int, end: int, new: str) -> str:
    """`text` with the code between two places of `code` replaced; comments only ever follow code on a line."""
    line_start = code.rfind("\n", 0, start) + 1
    line = code.count("\n", 0, start)
    lines = text.splitlines(keepends=True)
    at = start - line_start
    lines[line] = lines[line][:at] + new + lines[line][at + end - start :]
    return "".join(lines)
