"""What a build will do on this machine, said before it is fetched. Predictions, and called so."""

from ..errors import MemoryPlanError
from ..experts.machines import MACHINES
from ..hub.catalog import Build, too_small
from ..hub.machine import Machine
from .plan import describe


def expectation(build: Build, machine: Machine, anyway: bool = False) -> str:
    """One line. Raises MemoryPlanError for a Mac that cannot run it at all, but not if it is fetched `anyway`."""
    if problem := too_small(build, machine):
        return f"not here: {problem}"
    if build.how == "gguf":
        return "all of it in memory, by llama.cpp"
    if build.model != "397b":
        return f"by MLX; experts that do not fit in {machine.memory / 2**30:.0f} GiB are streamed from disk"
    name = known_as(machine)
    try:
        found = describe("397b", None, None, name)
    except MemoryPlanError as error:
        if machine.kind == "apple" and not anyway:
            raise
        return f"not with what is free now: {error}"
    slots = found["slots_per_layer"]
    line = "every expert in memory" if found["resident"] else f"{min(slots)} of 512 experts a layer in memory"
    if found["predictions"] is None:
        return f"{line}, the others from disk; how fast depends on the disk: `qwen35 doctor` measures it"
    slow, fast = found["predictions"]["decode_tps"]
    return f"{line}; predicted (not measured) {slow:g} to {fast:g} tokens a second"


def known_as(machine: Machine) -> str | None:
    """The machine's name in the table of predictions, if it is there: `Apple M4 Max` with 64 GiB is m4-max-64."""
    chip = machine.chip.lower().removeprefix("apple ").replace(" ", "-")
    name = f"{chip}-{machine.memory / 2**30:.0f}"
    return name if machine.kind == "apple" and name in MACHINES else None
