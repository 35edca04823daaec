"""`qwen35 rm MODEL`: asks, shows what it frees, and removes it."""

import argparse
import os
import shutil
import sys

from ..config import Settings
from ..errors import StorageError, UsageError
from ..hub.library import DOOMED, find_stored
from ..hub.place import lock
from ..hub.progress import size


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", help="a name from `qwen35 list`")
    parser.add_argument("--yes", action="store_true", help="do not ask")


def run(args: argparse.Namespace) -> int:
    model = find_stored(Settings.resolve().models, args.model)
    print(f"{model.path} ({model.state}): removing it frees {size(model.nbytes)}")
    if not args.yes:
        if not sys.stdin.isatty():
            raise UsageError("rm asks before it removes, and nobody is there to answer: use --yes")
        if input("remove it? [y/N] ").strip().lower() not in ("y", "yes"):
            print("kept")
            return 1
    try:
        if model.state == "unfinished":
            os.close(lock(model.path))  # a download that goes on would lose its ground
        # First out of its name, so that a half-removed directory is never taken for a model.
        doomed = model.path
        if model.state != "half removed":
            doomed = model.path.rename(model.path.with_name(f".{model.path.name}{DOOMED}"))
        shutil.rmtree(doomed)
    except OSError as error:
        raise StorageError(f"{model.path} cannot be removed: {error.strerror}") from error
    print(f"freed {size(model.nbytes)}")
    return 0
