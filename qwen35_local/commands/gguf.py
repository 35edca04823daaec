"""`qwen35 gguf MODEL FILE`: write a checkpoint as one GGUF file, for llama.cpp."""

import argparse
from pathlib import Path

from ..checkpoint.locate import find_model
from ..config import Settings
from ..errors import UsageError
from ..gguf.convert import CHOICES, Types, convert
from ..gguf.model import GgufModel
from .terminal import standard_printer


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", help="a checkpoint directory, a repository in the Hub cache, or 'miniature'")
    parser.add_argument("file", type=Path, help="the file to write, NAME.gguf")
    kinds = "auto keeps the values as they are, or takes 8 bits where GGUF has no such packing (default: %(default)s)"
    parser.add_argument("--matrices", choices=CHOICES, default="auto", help=kinds)
    parser.add_argument("--experts", choices=CHOICES, default="auto", help="the same for routed experts")
    parser.add_argument("--force", action="store_true", help="replace the file if it exists")


def run(args: argparse.Namespace) -> int:
    if args.file.suffix != ".gguf":
        raise UsageError(f"{args.file} must end in .gguf: llama.cpp goes by the name", "file")
    if args.file.exists() and not args.force:
        raise UsageError(f"{args.file} exists: --force replaces it", "file")
    if not args.file.absolute().parent.is_dir():
        raise UsageError(f"there is no directory {args.file.absolute().parent}", "file")
    printer = standard_printer(Settings.resolve().no_color)
    for progress in convert(find_model(args.model), args.file, Types(args.matrices, args.experts)):
        printer.progress(progress)
    written = GgufModel.open(args.file)
    print(f"{args.file}: {written.nbytes / 1e9:.3f} GB, {len(written.tensors)} tensors, mostly {written.quantization}")
    return 0
