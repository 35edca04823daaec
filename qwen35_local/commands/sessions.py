"""`qwen35 sessions list|rm`: the conversations that were kept with `--session`, and the disk that they take."""

import argparse
import json
import sys
from dataclasses import asdict
from datetime import datetime

from ..config import Settings
from ..errors import UsageError
from ..hub.progress import size
from ..sessions.store import Store, Stored


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True, metavar="list|rm")
    listing = actions.add_parser("list", help="show them, the newest first")
    listing.add_argument("--json", action="store_true", help="print one JSON object")
    removal = actions.add_parser("rm", help="remove some")
    removal.add_argument("names", nargs="+", metavar="NAME")
    removal.add_argument("--state", action="store_true", help="only the model's state; what was said is kept")
    removal.add_argument("--yes", action="store_true", help="do not ask")


def run(args: argparse.Namespace) -> int:
    store = Store(Settings.resolve().data / "sessions")
    return show(store, args.json) if args.action == "list" else remove(store, args.names, args.state, args.yes)


def show(store: Store, as_json: bool) -> int:
    found = list(store)
    if as_json:
        print(json.dumps({"directory": str(store.directory), "sessions": [asdict(stored) for stored in found]}))
        return 0
    width = max((len(stored.name) for stored in found), default=0)
    for stored in found:
        print(f"{stored.name:{width}}  {line(stored)}")
    if not found:
        print(f"no sessions in {store.directory} yet: `qwen35 run PROMPT --session NAME` begins one")
    return 0


def line(stored: Stored) -> str:
    when = datetime.fromtimestamp(stored.saved).strftime("%Y-%m-%d %H:%M")
    what = f"{stored.turns} messages, {stored.tokens} tokens read" + (f" by {stored.model}" if stored.model else "")
    return f"{size(stored.nbytes):>9}  {when}  {stored.problem or what}"


def remove(store: Store, names: list[str], state_only: bool, yes: bool) -> int:
    found = [store.find(name) for name in names]
    for stored in found:
        print(f"{stored.name}: {line(stored)}")
    if not yes and not state_only:
        if not sys.stdin.isatty():
            raise UsageError("sessions rm asks before it removes, and nobody is there to answer: use --yes")
        if input("remove what was said, too? [y/N] ").strip().lower() not in ("y", "yes"):
            print("kept")
            return 1
    freed = sum(store.remove(stored.name, state_only) for stored in found)
    print(f"freed {size(freed)}")
    return 0
