"""How a conversion packs each matrix: a declared policy, and exceptions from a file. Pure."""

import fnmatch
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ..errors import UsageError
from ..model.config import AFFINE_BITS, AFFINE_GROUPS, FP_MODES, Quantization

EXPERTS = ("*.mlp.experts.*",)
# What decides where a token goes, how long the state lives, and how much the shared expert says. Small, and fragile.
GATES = ("*.mlp.gate", "*.mlp.shared_expert_gate", "*.in_proj_a", "*.in_proj_b")
ROUTERS = ("*.mlp.gate", "*.mlp.shared_expert_gate")
KEPT = "bf16"


@dataclass(frozen=True, slots=True)
class Recipe:
    """`rules` are (pattern on canonical module names, packing), the last match wins; None is not packed."""

    name: str
    default: Quantization
    rules: tuple[tuple[str, Quantization | None], ...] = ()

    def of(self, module: str) -> Quantization | None:
        for pattern, packing in reversed(self.rules):
            if fnmatch.fnmatchcase(module, pattern):
                return packing
        return self.default

    def with_rules(self, rules: Mapping[str, str]) -> "Recipe":
        extra = tuple((pattern, packing(text)) for pattern, text in rules.items())
        return Recipe(self.name, self.default, (*self.rules, *extra))


def packing(text: str) -> Quantization | None:
    """`mxfp4`, `nvfp4`, `mxfp8`, `affine4`, `affine6g32`, or `bf16` for not packed."""
    if text == KEPT:
        return None
    if text in FP_MODES:
        bits, group = FP_MODES[text]
        return Quantization(bits, group, text)  # pyright: ignore[reportArgumentType]
    if found := re.fullmatch(r"affine(\d)(?:g(\d+))?", text):
        bits, group = int(found[1]), int(found[2] or 64)
        if bits in AFFINE_BITS and group in AFFINE_GROUPS:
            return Quantization(bits, group, "affine")
    raise UsageError(f"no packing {text!r}: use {', '.join(FP_MODES)}, affine4, affine8g32 … or {KEPT}", "quant")


def recipe(name: str) -> Recipe:
    """mxfp4, nvfp4, affine4 (… any single packing): everything but the routers, which get 8 bits as in MLX's own
    conversions. mixed: experts MXFP4, gates as released, all other matrices 8 bits."""
    eight = Quantization(8, 64, "affine")
    if name == "mixed":
        experts = packing("mxfp4")
        assert experts is not None
        rules = (("*", eight), *((p, experts) for p in EXPERTS), *((p, None) for p in GATES))
        return Recipe(name, experts, rules)
    default = packing(name)
    if default is None:
        raise UsageError(f"--quant {name} would pack nothing: use mixed, mxfp4, nvfp4 or affine4", "quant")
    return Recipe(name, default, tuple((pattern, eight) for pattern in ROUTERS))


def read_rules(path: Path) -> dict[str, str]:
    """A TOML file of `"layers.0.*" = "affine8"` lines."""
    try:
        rules = tomllib.loads(path.read_text())
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is not valid TOML: {error}") from error
    if wrong := [name for name, value in rules.items() if not isinstance(value, str)]:
        raise UsageError(f"{path}: {wrong[0]} must be one packing in quotes (write patterns in quotes too)")
    return rules
