"""The catalogue as a table, with what of it fits this machine."""

import json

from ..hub.catalog import BUILDS, Build, memory_needed, obstacle
from ..hub.machine import Machine
from ..hub.progress import size


def show_builds(machine: Machine, free: int, as_json: bool) -> None:
    """`free` is bytes of disk."""
    rows = [
        {
            "name": build.full_name,
            "repo": build.repo,
            "bytes": build.stored,
            "fetched": build.fetched,
            "memory": memory_needed(build),
            "runs with": build.runs_with,
            "lacks": obstacle(build, machine, free),
        }
        for build in BUILDS
    ]
    if as_json:
        print(json.dumps({"machine": str(machine), "free": free, "builds": rows}))
        return
    print(f"{machine}; {size(free)} of disk are free\n")
    print(f"{'build':17}{'disk':>9}{'fetched':>10}{'memory':>10}  {'runs with':11}here")
    for build, row in zip(BUILDS, rows, strict=True):
        sizes = f"{size(build.stored):>9}{size(build.fetched):>10}{size(row['memory']):>10}"
        print(f"{build.full_name:17}{sizes}  {build.runs_with:11}{_verdict(build, machine, row['lacks'])}")
    print("\nMLX streams experts from disk, and more memory makes it faster; llama.cpp wants all of them in memory.")


def _verdict(build: Build, machine: Machine, lacks: str | None) -> str:
    if lacks:
        return f"too little {lacks}"
    return "fits" if build.how == "gguf" or machine.kind == "apple" else "fits, slow (CPU)"
