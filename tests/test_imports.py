"""The arrows of ARCHITECTURE.md: who may import whom, and what must stay light to import."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("qwen35_local", "metal_kernels", "tui")
SEAMS = {"engine", "events", "errors", "config"}
# Part -> the parts it may import. `cli` and `commands` may import everything.
ALLOWED = {
    "errors": set(),
    "events": {"errors"},
    "config": {"errors"},
    "parts": {"errors"},
    "engine": {"errors", "events", "parts"},
    "bridge": SEAMS,
    "sampling": SEAMS,
    "generate": SEAMS | {"chat", "sampling"},
    "chat": SEAMS,
    "checkpoint": {"errors", "config"},
    "metal_kernels": set(),
    "model": SEAMS | {"metal_kernels", "experts", "checkpoint"},
    "experts": SEAMS | {"checkpoint"},
    "gguf": SEAMS | {"checkpoint", "model", "media"},  # of the model its config alone, of media its rules
    "media": SEAMS,
    "miniature": set(),
    "sessions": SEAMS,
    "hub": SEAMS | {"checkpoint", "experts", "miniature", "model"},
    "backends": SEAMS
    | {
        "generate",
        "sampling",
        "chat",
        "checkpoint",
        "model",
        "metal_kernels",
        "experts",
        "gguf",
        "media",
        "hub",
        "miniature",
        "sessions",
    },
    "server": SEAMS | {"bridge", "chat"},
    "tui": SEAMS | {"bridge", "media"},
    "__init__": SEAMS | {"backends"},
}
FREE = {"cli", "commands"}
# Files that touch MLX inside parts that otherwise must not.
MLX_PARTS = {"model", "metal_kernels", "commands"}
MLX_FILES = {
    "qwen35_local/backends/ahead.py",
    "qwen35_local/backends/eyes.py",
    "qwen35_local/backends/memory.py",
    "qwen35_local/backends/mlx.py",
    "qwen35_local/backends/mlx_saved.py",
    "qwen35_local/backends/mlx_session.py",
    "qwen35_local/experts/bank.py",
    "qwen35_local/experts/prefill.py",
    "qwen35_local/experts/slots.py",
    "qwen35_local/hub/convert.py",
    "qwen35_local/hub/fp4.py",
}


def part_of(path: Path) -> str:
    inside = path.relative_to(ROOT).parts
    return inside[0] if inside[0] != "qwen35_local" else inside[1].removesuffix(".py")


def imported(path: Path) -> Iterator[str]:
    """Absolute dotted names of everything that a file imports, wherever in it."""
    package = list(path.relative_to(ROOT).parts[:-1])
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            yield module
            yield from (f"{module}.{alias.name}" for alias in node.names)


def parts_imported(path: Path) -> set[str]:
    found = set()
    for name in imported(path):
        head, *rest = name.split(".")
        if head == "qwen35_local" and rest:
            found.add(rest[0])
        elif head in PACKAGES:
            found.add(head)
    return found


FILES = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_arrows(path):
    part = part_of(path)
    if part in FREE:
        return
    names = {name for name in parts_imported(path) if name in ALLOWED or name in FREE}
    assert names - {part} <= ALLOWED[part], f"{part} may not import {names - {part} - ALLOWED[part]}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_mlx_stays_where_it_belongs(path):
    uses_mlx = any(name.split(".")[0] in ("mlx", "mlx_lm") for name in imported(path))
    assert not uses_mlx or part_of(path) in MLX_PARTS or str(path.relative_to(ROOT)) in MLX_FILES


@pytest.mark.parametrize("part", ["errors", "events", "config", "parts", "engine"])
def test_seams_need_only_the_standard_library(part):
    names = {name.split(".")[0] for name in imported(ROOT / "qwen35_local" / f"{part}.py")}
    assert names <= set(sys.stdlib_module_names) | {"qwen35_local"}


@pytest.mark.parametrize("module", ["qwen35_local", "qwen35_local.cli", "qwen35_local.server", "tui"])
def test_importing_loads_no_backend(module):
    if not list(ROOT.glob(f"{module.replace('.', '/')}*")):
        pytest.skip(f"{module} does not exist yet")
    code = (
        f"import sys, {module}; print([m for m in ('mlx', 'llama_cpp', 'torch', 'transformers') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert out.stdout.strip() == "[]"


def test_every_part_has_an_arrow():
    assert {part_of(path) for path in FILES} <= set(ALLOWED) | FREE
