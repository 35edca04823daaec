"""Runs Metal Shading Language compute kernels on a CPU, to test them without a Mac. See README.md."""

from .compiler import CompileError, missing
from .program import Counters, Fault, Program, Traffic
from .recorded import PREAMBLE, Launch, Recorded, from_numpy, metal_on_cpu, poisoned, record, run, to_numpy

__all__ = [
    "PREAMBLE",
    "CompileError",
    "Counters",
    "Fault",
    "Launch",
    "Program",
    "Recorded",
    "Traffic",
    "from_numpy",
    "metal_on_cpu",
    "missing",
    "poisoned",
    "record",
    "run",
    "to_numpy",
]
