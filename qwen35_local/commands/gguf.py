"""`qwen35 gguf MODEL FILE`: write a checkpoint as a GGUF file for llama.cpp, and its vision part as another."""

import argparse
from dataclasses import replace
from pathlib import Path

from ..checkpoint.locate import find_model
from ..config import Settings
from ..errors import UsageError
from ..gguf.convert import CHOICES, Types, convert, convert_vision, has_vision
from ..gguf.header import read_header
from ..gguf.model import VISION_PREFIX, mostly
from .terminal import standard_printer


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", help="a checkpoint directory, a repository in the Hub cache, or 'miniature'")
    parser.add_argument("file", type=Path, help="the file to write, NAME.gguf")
    kinds = "auto keeps the values as they are, or takes 8 bits where GGUF has no such packing (default: %(default)s)"
    parser.add_argument("--matrices", choices=CHOICES, default="auto", help=kinds)
    parser.add_argument("--experts", choices=CHOICES, default="auto", help="the same for routed experts")
    parser.add_argument("--no-vision", action="store_true", help="do not write mmproj-FILE beside it")
    parser.add_argument("--force", action="store_true", help="replace the file if it exists")


def run(args: argparse.Namespace) -> int:
    if args.file.suffix != ".gguf":
        raise UsageError(f"{args.file} must end in .gguf: llama.cpp goes by the name", "file")
    if args.file.name.startswith(VISION_PREFIX):
        raise UsageError(f"{args.file.name} is a name for the vision part, which is written beside the model", "file")
    if not args.file.absolute().parent.is_dir():
        raise UsageError(f"there is no directory {args.file.absolute().parent}", "file")
    model, types = find_model(args.model), Types(args.matrices, args.experts)
    work = [(args.file, convert(model, args.file, types))]
    if not args.no_vision and has_vision(model):
        eyes = args.file.with_name(f"{VISION_PREFIX}-{args.file.name}")
        # Too small a part of a model to be worth four bits.
        work.append((eyes, convert_vision(model, eyes, replace(types, matrices="f16" if packed(types) else "auto"))))
    for file, _ in work:
        if file.exists() and not args.force:
            raise UsageError(f"{file} exists: --force replaces it", "file")
    printer = standard_printer(Settings.resolve().no_color)
    for file, steps in work:
        for progress in steps:
            printer.progress(progress)
        written = read_header(file)
        count = len(written.tensors)
        print(f"{file}: {written.size / 1e9:.3f} GB, {count} tensors, mostly {mostly(written.tensors.values())}")
    return 0


def packed(types: Types) -> bool:
    return types.matrices in ("q8_0", "mxfp4")
