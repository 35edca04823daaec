"""`qwen35 doctor`: what this machine has, lacks and can do. Nothing is changed."""

import argparse
import importlib.metadata
import json
import platform
import socket
from dataclasses import asdict
from pathlib import Path
from typing import Any

from .. import __version__
from ..config import Settings
from ..errors import BackendUnavailable
from ..experts.host import available_memory
from ..hub.disk import measure_disk
from ..hub.library import stored_models
from ..hub.machine import this_machine
from ..hub.place import free_space
from ..hub.progress import size
from .layout import labelled

PORT = 8035  # of `qwen35 serve`
MISSING = "missing"
LIBRARIES = ("huggingface-hub", "tokenizers", "numpy", "textual", "pillow")
EXTRAS = {"av": "video", "textual-serve": "web"}  # package -> our extra that brings it
TOKEN_BYTES = 4.01e9  # of experts that one token of the 397B in MXFP4 needs when none is in memory


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--no-disk", action="store_true", help="do not measure the disk (it writes 267 MB for a moment)"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> int:
    found = examine(not args.no_disk)
    if args.json:
        print(json.dumps(found, indent=1))
    else:
        print("\n".join(lines(found)))
    return 0 if any(backend["ok"] for backend in found["backends"].values()) else 1


def examine(disk: bool) -> dict[str, Any]:
    """Everything as plain values; nothing here raises."""
    settings, machine = Settings.resolve(), this_machine()
    return {
        "qwen35": __version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.mac_ver()[0] or platform.release()}, {platform.machine()}",
        "machine": str(machine),
        "memory": {"bytes": machine.memory, "available": available_memory()},
        "backends": {"mlx": _mlx(), "llama.cpp": _llama_cpp()},
        "kernels": _kernels(settings),
        "models": {"directory": str(settings.models), "count": len(stored_models(settings.models))},
        "disk": {"free": free_space(settings.models)} | (_disk(settings.models) if disk else {}),
        "port": {"number": PORT, "free": _port_is_free(PORT)},
        "terminal": {"pictures": settings.graphics, "colours": not settings.no_color, "cursor": not settings.dumb},
        "hub": _hub(),
        "libraries": {name: _version(name) for name in LIBRARIES},
        "extras": {name: {"version": _version(name), "for": what} for name, what in EXTRAS.items()},
    }


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return MISSING


def _hub() -> dict[str, Any]:
    """By huggingface_hub's own rules; whether there is a token, never the token."""
    from huggingface_hub import constants, get_token

    return {
        "endpoint": constants.ENDPOINT,
        "token": get_token() is not None,
        "offline": constants.HF_HUB_OFFLINE,
        "cache": constants.HF_HUB_CACHE,
    }


def _mlx() -> dict[str, Any]:
    try:
        import mlx.core as mx

        device = mx.device_info().get("device_name", "") if mx.metal.is_available() else ""
        where = f"Metal on {device}" if mx.metal.is_available() else "CPU"
        return {"ok": True, "version": _version("mlx"), "device": where}
    except ImportError as error:
        package = "mlx[cpu]" if platform.system() == "Linux" else "mlx"
        return {"ok": False, "problem": str(error), "install": f"pip install '{package}>=0.32.4,<0.33'"}


def _llama_cpp() -> dict[str, Any]:
    from ..backends.llama_cpp.library import install_hint, load

    try:
        load()
        return {"ok": True, "version": _version("llama-cpp-python")}
    except BackendUnavailable as error:
        return {"ok": False, "problem": str(error).split(":")[0], "install": install_hint()}


def _kernels(settings: Settings) -> list[dict[str, Any]]:
    """Each operation, what runs it, and what became of every candidate; on Metal it is judged now if it never was."""
    try:
        from metal_kernels.dispatch import configure, report
        from metal_kernels.operations import OPERATIONS

        configure(settings.kernels, settings.data)
        return [asdict(verdict) | {"mode": settings.kernels} for verdict in report(OPERATIONS)]
    except (ImportError, RuntimeError) as error:
        return [{"operation": "kernels", "used": "none", "trials": [], "mode": settings.kernels, "problem": str(error)}]


def _disk(directory: Path) -> dict[str, Any]:
    while not directory.exists():
        directory = directory.parent
    try:
        rate = measure_disk(directory)
    except OSError as error:
        return {"problem": f"{directory} cannot be measured: {error.strerror}"}
    return {"read": round(rate.read), "write": round(rate.write), "cached": rate.cached}


def _port_is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def lines(found: dict[str, Any]) -> list[str]:
    """For people."""
    memory, disk, port, terminal = (found[name] for name in ("memory", "disk", "port", "terminal"))
    rows = [
        ("qwen35", f"{found['qwen35']} on Python {found['python']}, {found['system']}"),
        ("machine", f"{found['machine']}, {memory['available'] / 2**30:.1f} GiB of it free"),
        *((name, _backend(backend)) for name, backend in found["backends"].items()),
        *_kernel_rows(found["kernels"]),
        ("disk", f"{size(disk['free'])} free in {found['models']['directory']}" + _rates(disk)),
        ("models", f"{found['models']['count']} on this machine (`qwen35 list`)"),
        ("server", f"port {port['number']} is {'free' if port['free'] else 'taken: use `qwen35 serve --port`'}"),
        ("terminal", f"pictures as {terminal['pictures']}, {'with' if terminal['colours'] else 'without'} colours"),
        ("hub", _hub_line(found["hub"])),
        ("libraries", ", ".join(f"{name} {version}" for name, version in found["libraries"].items())),
        *((name, _extra(extra)) for name, extra in found["extras"].items()),
    ]
    return list(labelled(rows))


def _backend(backend: dict[str, Any]) -> str:
    if backend["ok"]:
        return " ".join(str(backend[key]) for key in ("version", "device") if key in backend)
    return f"missing; to install it: {backend['install']}"


def _hub_line(hub: dict[str, Any]) -> str:
    token = "with a token" if hub["token"] else "without a token (`hf auth login` for gated repositories)"
    return f"{hub['endpoint']}, {token}" + (", offline: HF_HUB_OFFLINE is set" if hub["offline"] else "")


def _extra(extra: dict[str, str]) -> str:
    if extra["version"] != MISSING:
        return extra["version"]
    return f"missing; to install it: pip install 'qwen35-local[{extra['for']}]'"


def _kernel_rows(kernels: list[dict[str, Any]]) -> list[tuple[str, str]]:
    if problems := [kernel["problem"] for kernel in kernels if "problem" in kernel]:
        return [("kernels", problem) for problem in problems]
    if not any(kernel["trials"] for kernel in kernels):
        forced = kernels[0]["mode"] == "reference"
        why = "QWEN35_KERNELS=reference" if forced else "kernels are tried on Metal only"
        return [("kernels", f"{len(kernels)} operations run their reference: {why}")]
    return [(f"  {kernel['operation']}", _kernel(kernel)) for kernel in kernels]


def _kernel(kernel: dict[str, Any]) -> str:
    if not kernel["trials"]:
        return f"runs {kernel['used']}"
    return f"runs {kernel['used']} ({'; '.join(_trial(trial) for trial in kernel['trials'])})"


def _trial(trial: dict[str, Any]) -> str:
    if trial["outcome"] == "verified":
        return f"{trial['candidate']} verified, error {trial['error']:.0e}, {trial['microseconds']:.0f} µs"
    return f"{trial['candidate']} {trial['outcome']}: {trial['reason']}"


def _rates(disk: dict[str, Any]) -> str:
    if "problem" in disk:
        return f"; {disk['problem']}"
    if "read" not in disk:
        return ""
    note = ", from the page cache" if disk["cached"] else ""
    token = TOKEN_BYTES / disk["read"]
    return (
        f"; experts read at {disk['read'] / 1e9:.2f} GB/s{note}: a token of the 397B with none in memory takes "
        f"{token:.2f} s; written at {disk['write'] / 1e9:.2f} GB/s"
    )
