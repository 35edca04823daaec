"""`qwen35 plan --model FILE.gguf`: where llama.cpp would put a GGUF model, here or on another machine."""

from pathlib import Path
from typing import Any

from ..backends.llama_cpp.library import ggml, load
from ..backends.llama_cpp.machine import Machine, physical_cores, this_machine
from ..backends.llama_cpp.plan import Wishes, make_plan
from ..errors import BackendUnavailable
from ..experts.budget import parse_memory
from ..experts.host import available_memory
from ..gguf.model import GgufModel
from ..gguf.vision import find_vision
from ..hub.machine import this_machine as hardware


def describe_gguf(path: Path, memory: str | None, gpu: str | None, context: int | None) -> dict[str, Any]:
    """The plan as plain values, sizes in bytes. `memory` and `gpu` stand for what is free here.

    Raises MemoryPlanError if the model does not fit.
    """
    model, machine = GgufModel.open(path), free_here()
    machine = Machine(
        parse_memory(memory) if memory is not None else machine.memory,
        tuple(filter(None, [parse_memory(gpu)])) if gpu is not None else machine.gpus,
        machine.cores,
    )
    vision = find_vision(model)
    plan = make_plan(model, machine, Wishes(context=context), vision.nbytes if vision else 0)
    return {
        "model": str(path),
        "files": len(model.files),
        "vision": vision.path.name if vision else None,
        "free_bytes": {"memory": machine.memory, "gpus": list(machine.gpus)},
        "needed_bytes": {"memory": plan.memory, "gpu": plan.gpu_memory},
        "reserved_bytes": dict(plan.parts),
        "context": plan.context,
        "layers": model.layers,
        "gpu_layers": plan.gpu_layers,
        "cpu_experts": plan.cpu_experts,
        "repack": plan.repack,
        "threads": plan.threads,
        "session_bytes": plan.session,
        "summary": str(plan),
    }


def free_here() -> Machine:
    """This machine as llama.cpp sees it; without its library the cards count with all the memory they have."""
    try:
        load()
    except BackendUnavailable:
        card = hardware().gpu_memory
        return Machine(available_memory(), (card,) if card else (), physical_cores())
    return this_machine(ggml())


def gguf_lines(found: dict[str, Any]) -> list[str]:
    """For people."""
    free = found["free_bytes"]
    cards = "".join(f" + {size / 1e9:.1f} GB of a GPU" for size in free["gpus"])
    eyes = f"vision part {found['vision']}" if found["vision"] else "no vision part beside it: text only"
    parts = f" in {found['files']} files" if found["files"] > 1 else ""
    return [
        f"{found['model']}{parts}; {eyes}",
        f"free: {free['memory'] / 1e9:.1f} GB of memory{cards}",
        *(f"  {name:48} {size / 1e9:8.3f} GB" for name, size in found["reserved_bytes"].items() if size),
        f"  {'in all':48} {sum(found['reserved_bytes'].values()) / 1e9:8.3f} GB",
        found["summary"],
        f"another conversation kept beside it: {found['session_bytes'] / 1e9:.2f} GB",
    ]
