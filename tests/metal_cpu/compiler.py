"""Calls the C++ compiler; keeps what it made, by hash of everything that went in."""

import functools
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from pathlib import Path

from .source import HERE

# What each build adds. "count" is ThreadSanitizer's instrumentation with our own functions behind it (count.cpp).
VARIANTS: dict[str, list[str]] = {
    "plain": [],
    "count": ["-fsanitize=thread", "--param=tsan-instrument-func-entry-exit=0", "-DMSL_COUNT", "-DMSL_INSTRUMENTED"],
    "address": ["-fsanitize=address,undefined", "-fno-sanitize=vptr", "-DMSL_ASAN", "-DMSL_INSTRUMENTED"],
    "thread": ["-fsanitize=thread", "-DMSL_TSAN", "-DMSL_INSTRUMENTED"],
}
RUNTIME = ["machine.cpp", "count.cpp", "main.cpp"]
_scratch: Path | None = None


class CompileError(Exception):
    """The compiler refused the kernel; the message is what it said."""


def compiler() -> str:
    return os.environ.get("METAL_CPU_CXX", "g++")


def missing() -> str | None:
    """Why kernels cannot be compiled here, or None if they can."""
    if shutil.which(compiler()) is None:
        return f"no C++ compiler: {compiler()} is not on the path (apt-get install g++, or set METAL_CPU_CXX)"
    if platform.machine() not in ("x86_64", "aarch64", "arm64"):
        return f"stack switching is not written for {platform.machine()}"
    return None


def cache_folder() -> Path:
    """$METAL_CPU_CACHE, else the user's cache folder, else a folder of the user's own under the temporary one."""
    if chosen := os.environ.get("METAL_CPU_CACHE"):
        return Path(chosen)
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    try:
        folder = base / "metal-cpu"
        folder.mkdir(parents=True, exist_ok=True)
        return folder
    except OSError:
        return Path(tempfile.gettempdir()) / f"metal-cpu-{os.getuid()}"


def use_scratch(folder: Path) -> None:
    """From now on this process puts new kernels there, and takes from the cache what it has: for kernels run once."""
    global _scratch
    _scratch = folder


@functools.cache
def _identity() -> str:
    """The compiler's version and every file of ours that a build depends on."""
    version = subprocess.run([compiler(), "--version"], capture_output=True, text=True).stdout
    ours = sorted(p for folder in ("include", "runtime") for p in (HERE / folder).rglob("*") if p.is_file())
    return version + "".join(p.read_text() for p in ours)


def _is_gcc() -> bool:
    return "clang" not in compiler() and platform.system() != "Darwin"


def _flags() -> list[str]:
    return [
        "-std=c++20", "-O2", "-g1", "-w", "-fPIC", "-fvisibility=hidden", "-fno-strict-aliasing",
        "-ffp-contract=off",  # a Mac may fuse multiply and add: tolerances must be above the difference
        "-ftrivial-auto-var-init=pattern",  # a register that was not written holds rubbish
        # unsuffixed literals are float, 16-bit floats round after each operation, no symbol is shared by libraries
        *(["-fsingle-precision-constant", "-fexcess-precision=16", "-fno-gnu-unique"] if _is_gcc() else []),
        *(["-march=x86-64-v3"] if platform.machine() == "x86_64" else []),
        f"-I{HERE / 'include'}",
    ]  # fmt: skip


def _hash(*parts: object) -> str:
    return hashlib.sha256(repr((parts, _identity())).encode()).hexdigest()[:24]


def _run(command: list[str], output: Path) -> None:
    """Compile to a temporary name and rename, so that a cache shared by processes never holds half a file."""
    partial = output.with_name(f"{output.name}.{os.getpid()}.part")
    done = subprocess.run([*command, "-o", str(partial)], capture_output=True, text=True)
    if done.returncode:
        raise CompileError(done.stderr[:6000])
    partial.replace(output)


def _runtime(variant: str, folder: Path) -> list[Path]:
    """The machine's objects. They are not instrumented: their accesses are not the kernel's."""
    folder.mkdir(parents=True, exist_ok=True)
    defines = [flag for flag in VARIANTS[variant] if flag.startswith("-D")]
    names = [n for n in RUNTIME if n != ("count.cpp" if variant != "count" else "main.cpp")]
    if variant == "plain":
        names.remove("main.cpp")
    objects = []
    for name in names:
        path = folder / f"{_hash(name, defines, _flags())}.o"
        if not path.exists():
            _run([compiler(), *_flags(), *defines, "-c", str(HERE / "runtime" / name)], path)
        objects.append(path)
    return objects


def _header(variant: str, folder: Path) -> list[str]:
    """Where the compiler finds <metal_stdlib> already parsed, which is half of the work for a small kernel."""
    if not _is_gcc():
        return []
    flags = [*_flags(), *VARIANTS[variant]]
    place = folder / f"header-{_hash(HERE, flags)}"
    place.mkdir(parents=True, exist_ok=True)
    forward, parsed = place / "metal_stdlib", place / "metal_stdlib.gch"
    if not parsed.exists():
        forward.write_text(f'#include "{HERE / "include" / "metal_stdlib"}"\n')  # for whoever includes it again
        _run([compiler(), *flags, "-x", "c++-header", str(forward)], parsed)
    return [f"-I{place}"]


def build(unit: str, variant: str, folder: Path | None = None) -> Path:
    """Compile a translation unit: a shared library for plain and count, a program for the sanitizers."""
    library = variant in ("plain", "count")
    name = f"{_hash(unit, VARIANTS[variant], _flags())}{'.so' if library else '.exe'}"
    for place in (folder or cache_folder(), *([_scratch] if _scratch else [])):
        if (place / name).exists():
            return place / name
    output = (folder or _scratch or cache_folder()) / name
    output.parent.mkdir(parents=True, exist_ok=True)
    objects = _runtime(variant, cache_folder())
    with tempfile.TemporaryDirectory() as scratch:
        source, kernel = Path(scratch) / "kernel.cpp", Path(scratch) / "kernel.o"
        source.write_text(unit)
        header = _header(variant, cache_folder())
        _run([compiler(), *header, *_flags(), *VARIANTS[variant], "-c", str(source)], kernel)
        # counting brings its own functions, so it must not be linked with ThreadSanitizer's
        link = ["-shared"] if library else [f for f in VARIANTS[variant] if f.startswith("-fsanitize")]
        _run([compiler(), *link, str(kernel), *map(str, objects)], output)
    return output
