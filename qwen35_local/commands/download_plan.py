"""What a download will do, as values and for people."""

import json
from typing import Any

from ..hub.catalog import Build
from ..hub.download import DownloadPlan
from ..hub.machine import Machine
from ..hub.progress import duration, size
from .expect import expectation
from .layout import labelled


def facts_of(
    plan: DownloadPlan, machine: Machine, build: Build | None, rate: float | None, quant: str = "", anyway: bool = False
) -> dict[str, Any]:
    """The plan as plain values, bytes and seconds. What a conversion leaves is known before its headers are here only
    for builds of the catalogue."""
    disk = {"free": plan.free}
    if not quant:
        disk["after"] = plan.free - plan.missing
    elif build is not None and build.quant == quant:
        disk["after"] = plan.free - max(build.stored - plan.here, 0)
    facts: dict[str, Any] = {
        "model": f"{plan.listing.repo} at {plan.listing.commit[:12]}",
        "licence": plan.listing.licence,
        "to": str(plan.target),
        "files": len(plan.files),
        "bytes": plan.nbytes,
        "here": plan.here,
        "disk": disk,
        "machine": str(machine),
        "runs with": build.runs_with if build else ("llama.cpp" if plan.files[-1].path.endswith(".gguf") else "MLX"),
    }
    if build is not None:
        facts["expect"] = expectation(build, machine, anyway)
    if rate is not None:
        facts["rate"] = {"bytes per second": round(rate), "seconds": round(plan.missing / rate)}
    return facts


def show_plan(facts: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print(json.dumps({"plan": facts}), flush=True)
        return
    rows = [(name, _said(name, value)) for name, value in facts.items() if value != 0]
    print("\n".join(labelled(rows)), flush=True)


def _said(name: str, value: Any) -> str:
    match name:
        case "bytes" | "here":
            return size(value) + (" (of an earlier try)" if name == "here" else "")
        case "disk":
            return f"{size(value['free'])} free now" + (f", {size(value['after'])} after" if "after" in value else "")
        case "rate":
            return f"{size(value['bytes per second'])}/s on one connection: about {duration(value['seconds'])} or less"
        case _:
            return str(value)
