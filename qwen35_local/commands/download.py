"""`qwen35 download [NAME]`: the whole way from nothing to a model that opens, in one line."""

import argparse
import json
import shlex
import sys
from pathlib import Path
from typing import Any

from ..config import Settings
from ..errors import MemoryPlanError, StorageError, UsageError
from ..hub.catalog import Build, find_build, release_of, too_small
from ..hub.download import PROBED, begun, download, made_by, measure_rate, plan_download
from ..hub.machine import this_machine
from ..hub.manifest import Manifest
from ..hub.place import free_space, occupied
from ..hub.progress import Meter, counted, size
from ..hub.remote import list_repository
from ..hub.store import check_room, convert_repository, converted_by, plan_repository
from .builds import show_builds
from .convert import add_quant, chosen_parts, chosen_recipe, show
from .download_plan import facts_of, show_plan


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "name",
        nargs="?",
        default="397b",
        help="397b, 122b or 35b, with :BUILD for another than the best for this machine",
    )
    parser.add_argument("--builds", action="store_true", help="show the catalogue and what of it fits this machine")
    parser.add_argument("--repo", metavar="OWNER/NAME", help="a repository of the Hub instead of the catalogue")
    parser.add_argument("--include", action="append", default=[], metavar="PATTERN", help="only these files of --repo")
    parser.add_argument("--revision", help="branch, tag or commit (default: main, or the one already begun)")
    parser.add_argument("--endpoint", metavar="URL", help="another Hub than huggingface.co")
    parser.add_argument("--to", type=Path, metavar="DIR", help="the model's directory (default: in ~/.qwen35/models)")
    parser.add_argument("--dry-run", action="store_true", help="show the plan and the measured speed, fetch nothing")
    parser.add_argument("--anyway", action="store_true", help="also what this machine has too little memory for")
    add_quant(parser, None)
    parser.add_argument("--json", action="store_true", help="print plan and result as JSON lines")


def run(args: argparse.Namespace) -> int:
    machine = this_machine()
    home = Settings.resolve().models
    free = free_space(args.to or home)
    if args.builds:
        show_builds(machine, free, args.json)
        return 0
    if args.quant and not args.repo:
        args.repo = release_of(args.name)
    build = None if args.repo else find_build(args.name, machine, free)
    if build is not None and not args.anyway and (problem := too_small(build, machine)):
        raise MemoryPlanError(
            f"{problem}: `qwen35 download --builds` shows what fits, --anyway fetches it all the same"
        )
    repo = args.repo or (build.repo if build else "")
    quant = args.quant or (build.quant if build else "")
    policy = chosen_recipe(args, quant) if quant else None  # a wrong name is refused before anything is fetched
    include = tuple(args.include) or (build.include if build else ())
    made = converted_by(policy, chosen_parts(args)) if policy else made_by(include)
    target = (args.to or home / _directory(args, build)).expanduser().absolute()
    if (present := _present(target, repo, args.revision, made)) is not None:
        return _say_present(args, target, present)
    revision = args.revision or begun(target, repo)
    listing = list_repository(repo, revision, args.endpoint)
    plan = plan_download(listing, target, include)
    probed = args.dry_run or plan.missing >= PROBED
    rate = measure_rate(listing, max(plan.files, key=lambda f: f.size)) if probed else None
    show_plan(facts_of(plan, machine, build, rate, quant, args.anyway), args.json)
    if policy is None:
        plan.check_disk()
    if args.dry_run:
        if policy is not None:
            conversion, largest = plan_repository(listing, policy, chosen_parts(args)), max(f.size for f in plan.files)
            show(conversion, target, args.json, largest)
            check_room(conversion, target, largest)
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
        print(f"{target}: {size(stored)}, {counted(len(plan.files), 'file')} verified")
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


def _present(target: Path, repo: str, revision: str | None, made: dict[str, Any]) -> Manifest | None:
    """The manifest of a finished download that is what was asked for, so that no network is needed. Raises
    StorageError if something else is in its place."""
    if not target.exists():
        return None
    manifest = Manifest.read(target) if target.is_dir() else None
    if manifest is None:
        raise StorageError(
            f"{target} is there already, and was not fetched by qwen35: `qwen35 verify {target}` checks it; "
            "to fetch another, choose another place with --to"
        )
    source = manifest.source.get("repo") or manifest.source.get("directory", "another model")
    if source == repo:
        if manifest.made == made and revision in (None, manifest.source.get("commit")):
            return manifest
        source = f"{repo} at {manifest.source.get('commit', '')[:12]}, made otherwise than asked for now"
    raise StorageError(
        f"{target} is there already, and is {source}: remove it first, or choose another place with --to"
    )


def _say_present(args: argparse.Namespace, target: Path, manifest: Manifest) -> int:
    nbytes = sum(entry.size for entry in manifest.files.values())
    if args.json:
        print(json.dumps({"done": {"path": str(target), "files": len(manifest.files), "bytes": nbytes, "received": 0}}))
    else:
        print(f"{target} is already whole ({size(nbytes)}); `qwen35 verify {target}` checks every byte")
    return 0


def _same_line() -> str:
    return shlex.join(["qwen35", *sys.argv[1:]])
