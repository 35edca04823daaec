"""Runs a function in a process of its own, which it may crash or hang."""

import multiprocessing
import os
import resource
import signal
import sys
from collections.abc import Callable
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from typing import Any

# MLX's threads do not survive a fork, so processes come from a server that has imported much and evaluated nothing.
_context = multiprocessing.get_context("forkserver")
_modules = ["metal_cpu"]


class Died(Exception):
    """The process ended without an answer; the message says how."""


def preload(module: str) -> None:
    """Have the server import this module; a test module calls it for itself."""
    _modules.append(module)
    _context.set_forkserver_preload(_modules)


def run_alone(function: Callable[..., Any], *arguments: Any, cpu_seconds: int = 60) -> Any:
    """`function(*arguments)` in another process; `Died` if it crashes or computes for longer than `cpu_seconds`."""
    _ensure_server()
    receive, send = _context.Pipe(duplex=False)
    process = _context.Process(target=_child, args=(send, cpu_seconds, function, arguments))
    process.start()
    send.close()
    try:
        outcome, value = receive.recv()
    except EOFError:
        process.join()
        if (process.exitcode or 0) >= 0:  # no signal ended it: it never began
            raise ChildProcessError(f"a process ended with status {process.exitcode} before it answered") from None
        raise Died("it hangs" if process.exitcode == -signal.SIGXCPU else "it crashes") from None
    finally:
        process.kill()
        process.join()
    if outcome == "raised":
        raise value
    return value


def _ensure_server() -> None:
    """The server finds the tests' modules by PYTHONPATH only."""
    kept = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(sys.path)
    try:
        forkserver.ensure_running()
    finally:
        del os.environ["PYTHONPATH"]
        if kept is not None:
            os.environ["PYTHONPATH"] = kept


def _child(send: Connection, cpu_seconds: int, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    resource.setrlimit(resource.RLIMIT_CPU, (cpu_seconds, cpu_seconds))
    with open(os.devnull, "w") as nowhere:  # noqa: PTH123 - a descriptor, not a path
        os.dup2(nowhere.fileno(), 2)  # a crash speaks for itself
    try:
        send.send(("returned", function(*arguments)))
    except Exception as error:  # whatever it is, it is the caller's to judge
        send.send(("raised", error))
