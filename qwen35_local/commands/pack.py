"""`qwen35 pack MODEL`: copy the routed experts into records of one read each, beside the checkpoint. Resumes."""

import argparse
import shutil
import sys
from pathlib import Path

from ..checkpoint.files import Checkpoint
from ..checkpoint.locate import find_model
from ..checkpoint.names import canonical
from ..errors import UsageError
from ..experts.budget import gigabytes
from ..experts.layout import layer_layout
from ..experts.store import INDEX, open_store, pack, verify
from ..model.config import ModelConfig


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", help="a model directory or a repository in the Hub cache")
    parser.add_argument("--to", type=Path, help="the store's directory (default: experts/ in the model directory)")
    parser.add_argument("--verify", action="store_true", help="compare a finished store with its SHA-256 sums")


def run(args: argparse.Namespace) -> int:
    path = find_model(args.model)
    target = args.to or path / "experts"
    if args.verify:
        for done, total in verify(target):
            print(f"\rverified {done} of {total} layers", end="", file=sys.stderr, flush=True)
        print(file=sys.stderr)
        return 0
    checkpoint = Checkpoint.open(path)
    text = ModelConfig.from_dict(checkpoint.config).text
    tensors = {canonical(name): tensor for name, tensor in checkpoint.tensors.items()}
    layouts = [layer_layout(tensors, f"layers.{i}.mlp", text.num_experts) for i in range(text.num_layers)]
    if not (target / INDEX).exists():
        _check_room(target, sum(layout.nbytes for layout in layouts))
    for done, total in pack(layouts, target):
        print(f"\rpacked {gigabytes(done)} of {gigabytes(total)}", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    open_store(target)
    print(target)
    return 0


def _check_room(target: Path, nbytes: int) -> None:
    """Refuse at once what would fail after an hour."""
    parent = next(path for path in (target, *target.parents) if path.exists())
    had = sum(file.stat().st_size for file in target.glob("*.experts")) if target.exists() else 0
    free = shutil.disk_usage(parent).free
    if free < nbytes - had:
        raise UsageError(
            f"the store needs {gigabytes(nbytes - had)} of disk and {parent} has {gigabytes(free)}: choose another --to"
        )
