"""`qwen35 list`: the models on this machine and the disk that they take."""

import argparse
import json

from ..config import Settings
from ..hub.library import stored_models
from ..hub.place import free_space
from ..hub.progress import size


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> int:
    home = Settings.resolve().models
    models = stored_models(home)
    if args.json:
        rows = [
            {"name": m.name, "path": str(m.path), "state": m.state, "bytes": m.nbytes, "source": m.source}
            for m in models
        ]
        print(json.dumps({"models": rows, "free": free_space(home)}))
        return 0
    width = max((len(model.name) for model in models), default=0)
    for model in models:
        origin = f", from {model.source}" if model.source not in ("", model.name) else ""
        print(f"{model.name:{width}}  {size(model.nbytes):>9}  {model.state}{origin}")
    if not models:
        print(f"no models in {home} yet: `qwen35 download --dry-run` shows what fits here")
    print(f"{size(free_space(home))} of disk are free")
    return 0
