"""`qwen35 download [NAME]`: the whole way from nothing to a model that opens, in one line."""

import argparse
import json
import shlex
import sys
from pathlib import Path
from typing import Any

from ..config import Settings
from ..errors import UsageError
from ..hub.catalog import Build, find_build
from ..hub.download import DownloadPlan, begun, download, measure_rate, plan_download
from ..hub.machine import Machine, this_machine
from ..hub.manifest import Manifest
from ..hub.place import free_space, occupied
from ..hub.progress import Meter, duration, size
from ..hub.remote import list_repository
from ..hub.store import check_room, convert_repository, plan_repository
from .convert import add_quant, chosen_parts, chosen_recipe, show
from .expect import expectation


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "name",
        nargs="?",
        default="397b",
        help="397b, 122b or 35b, with :BUILD for another than the best for this machine",
    )
    parser.add_argument("--repo", metavar="OWNER/NAME", help="a repository of the Hub instead of the catalogue")
    parser.add_argument("--include", action="append", default=[], metavar="PATTERN", help="only these files of --repo")
    parser.add_argument("--revision", help="branch, tag or commit (default: main, or the one already begun)")
    parser.add_argument("--endpoint", metavar="URL", help="another Hub than huggingface.co")
    parser.add_argument("--to", type=Path, metavar="DIR", help="the model's directory (default: in ~/.qwen35/models)")
    parser.add_argument("--dry-run", action="store_true", help="show the plan and the measured speed, fetch nothing")
    add_quant(parser, None)
    parser.add_argument("--json", action="store_true", help="print plan and result as JSON lines")


def run(args: argparse.Namespace) -> int:
    machine = this_machine()
    home = Settings.resolve().models
    build = None if args.repo else find_build(args.name, machine, free_space(args.to or home))
    repo = args.repo or (build.repo if build else "")
    quant = args.quant or (build.quant if build else "")
    target = (args.to or home / _directory(args, build)).expanduser().absolute()
    if (present := _present(target, repo, args.revision)) is not None:
        return _say_present(args, target, present)
    include = tuple(args.include) or (build.include if build else ())
    revision = args.revision or begun(target, repo)
    listing = list_repository(repo, revision, args.endpoint)
    plan = plan_download(listing, target, include)
    policy = chosen_recipe(args, quant) if quant else None  # a wrong name is refused before anything is fetched
    rate = measure_rate(listing, max(plan.files, key=lambda f: f.size)) if args.dry_run else None
    _show(args, facts_of(plan, machine, build, rate, quant))
    if policy is None:
        plan.check_disk()
    if args.dry_run:
        if policy is not None:
            conversion = plan_repository(listing, policy, chosen_parts(args))
            show(conversion, target, args.json)
            check_room(conversion, target, max(file.size for file in plan.files))
        return 0
    meter = Meter(plan.nbytes, len(plan.files), "fetched", quiet=args.json)
    try:
        if policy is not None:
            convert_repository(listing, target, policy, chosen_parts(args), meter)
        else:
            download(plan, meter)
    except KeyboardInterrupt:
        meter.close()
        print(f"stopped at {size(meter.done)} of {size(plan.nbytes)}; to go on: {_same_line()}", file=sys.stderr)
        return 130
    finally:
        meter.close()
    stored = occupied(target)
    result = {"path": str(target), "files": len(plan.files), "bytes": stored, "received": meter.received}
    if args.json:
        print(json.dumps({"done": result}))
    else:
        print(f"{target}: {size(stored)}, every one of {len(plan.files)} files verified")
        print(f"try it: qwen35 chat --model {target.name if target.parent == home else target}")
    return 0


def _directory(args: argparse.Namespace, build: Build | None) -> str:
    if build is not None:
        return build.directory
    name = args.repo.split("/")[-1]
    if not name or name in (".", ".."):
        raise UsageError(f"{args.repo!r} is not the name of a repository: it must be OWNER/NAME", "repo")
    suffix = (
        "".join(c if c.isalnum() or c in "-._" else "" for c in args.include[0].split("/")[0]) if args.include else ""
    )
    suffix = args.quant or suffix
    return f"{name}-{suffix}" if suffix else name


def _present(target: Path, repo: str, revision: str | None) -> Manifest | None:
    """The manifest of a finished download that is what was asked for, so that no network is needed."""
    manifest = Manifest.read(target) if target.is_dir() else None
    if manifest is None or manifest.source.get("repo") != repo:
        return None
    return manifest if revision in (None, manifest.source.get("commit")) else None


def _say_present(args: argparse.Namespace, target: Path, manifest: Manifest) -> int:
    nbytes = sum(entry.size for entry in manifest.files.values())
    if args.json:
        print(json.dumps({"done": {"path": str(target), "files": len(manifest.files), "bytes": nbytes, "received": 0}}))
    else:
        print(f"{target} is already whole ({size(nbytes)}); `qwen35 verify {target}` checks every byte")
    return 0


def _show(args: argparse.Namespace, facts: dict[str, Any]) -> None:
    if args.json:
        print(json.dumps({"plan": facts}), flush=True)
        return
    for name, value in facts.items():
        if value != 0:
            print(f"{name:11} {_said(name, value)}")
    sys.stdout.flush()


def facts_of(
    plan: DownloadPlan, machine: Machine, build: Build | None, rate: float | None, quant: str = ""
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
        facts["expect"] = expectation(build, machine)
    if rate is not None:
        facts["rate"] = {"bytes per second": round(rate), "seconds": round(plan.missing / rate)}
    return facts


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


def _same_line() -> str:
    return shlex.join(["qwen35", *sys.argv[1:]])
