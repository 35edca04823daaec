"""`qwen35 convert SRC DST`: the bf16 release to a quantised MLX checkpoint, piece by piece."""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from ..checkpoint.files import Checkpoint
from ..checkpoint.locate import find_model
from ..hub.conversion import Conversion, plan_conversion
from ..hub.place import free_space, in_the_way
from ..hub.progress import Meter, counted, size
from ..hub.recipe import Recipe, read_rules, recipe
from ..hub.store import Parts, check_room, convert_directory, room_needed


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", help="directory of the bf16 release (or a repository in the Hub cache)")
    parser.add_argument("target", type=Path, help="directory to make")
    add_quant(parser, "mxfp4")
    parser.add_argument("--dry-run", action="store_true", help="show the plan only")
    parser.add_argument("--json", action="store_true", help="print plan and result as JSON lines")


def add_quant(parser: argparse.ArgumentParser, default: str | None) -> None:
    parser.add_argument(
        "--quant", default=default, help="mxfp4, nvfp4, mixed, or affineN as affine4, affine6g32 (default: mxfp4)"
    )
    parser.add_argument("--rules", type=Path, metavar="FILE", help='TOML of exceptions: "layers.0.*" = "affine8"')
    parser.add_argument("--no-vision", action="store_true", help="leave the vision tower out")
    parser.add_argument("--no-mtp", action="store_true", help="leave the multi-token head out")


def chosen_recipe(args: argparse.Namespace, default: str = "mxfp4") -> Recipe:
    found = recipe(args.quant or default)
    return found.with_rules(read_rules(args.rules)) if args.rules else found


def chosen_parts(args: argparse.Namespace) -> Parts:
    return Parts(vision=not args.no_vision, mtp=not args.no_mtp)


def run(args: argparse.Namespace) -> int:
    source, target = find_model(args.source), args.target.expanduser().absolute()
    if target.exists() and not args.dry_run:
        raise in_the_way(target)
    parts = chosen_parts(args)
    plan = plan_conversion(Checkpoint.open(source).tensors, chosen_recipe(args), parts.vision, parts.mtp)
    show(plan, target, args.json)
    check_room(plan, target, 0)
    if args.dry_run:
        return 0
    meter = Meter(plan.source_bytes, len(plan.shards), "converted", quiet=args.json)
    try:
        convert_directory(source, target, chosen_recipe(args), parts, meter)
    except KeyboardInterrupt:
        meter.close()
        print("stopped; finished shards are kept, the same line goes on", file=sys.stderr)
        return 130
    finally:
        meter.close()
    if args.json:
        print(json.dumps({"done": {"path": str(target), "bytes": plan.data_bytes}}))
    else:
        print(f"{target}: {size(plan.data_bytes)}. Try it: qwen35 chat --model {target}")
    return 0


def show(plan: Conversion, target: Path, as_json: bool, sources: int = 0) -> None:
    """The plan: bytes per class of tensor, and what the disk needs; `sources` are bytes of fetched shards at once."""
    facts = facts_of(plan, target, sources)
    if as_json:
        print(json.dumps({"plan": facts}), flush=True)
        return
    print(f"{'':22}{'released':>10}{'converted':>11}   packed as")
    for name, row in sorted(facts["classes"].items(), key=lambda item: -item[1]["in"]):
        print(f"{name:22}{size(row['in']):>10}{size(row['out']):>11}   {', '.join(row['as'])}")
    print(f"{'all':22}{size(plan.source_bytes):>10}{size(plan.data_bytes):>11}   {counted(len(plan.shards), 'shard')}")
    if facts["text bytes"] < plan.data_bytes:
        print(f"{'  of it the text model':22}{'':>10}{size(facts['text bytes']):>11}")
    print(f"disk: {size(facts['disk']['free'])} free, {size(facts['disk']['needed'])} needed", flush=True)


def facts_of(plan: Conversion, target: Path, sources: int) -> dict[str, Any]:
    classes = plan.classes()
    text = sum(row["out"] for name, row in classes.items() if name not in ("vision", "mtp"))
    return {
        "quant": plan.recipe.name,
        "to": str(target),
        "classes": {name: row | {"as": dict(row["as"])} for name, row in classes.items()},
        "source bytes": plan.source_bytes,
        "bytes": plan.data_bytes,
        "text bytes": text,
        "dropped": plan.dropped,
        "disk": {"free": free_space(target), "needed": room_needed(plan, target, sources)},
    }
