"""`qwen35 info MODEL`: what a model directory holds, from headers alone (no weights are read)."""

import argparse
import json
from typing import Any

from ..chat.tokenizer import Tokenizer
from ..checkpoint.files import Checkpoint
from ..checkpoint.locate import find_model
from ..checkpoint.names import canonical
from ..model.config import FULL, ModelConfig


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", nargs="?", default="miniature", help="a directory, a cached repository or 'miniature'")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> int:
    found = describe(args.model)
    if args.json:
        print(json.dumps(found, indent=1))
        return 0
    width = max(map(len, found))
    for name, value in found.items():
        print(f"{name:{width}}  {value}")
    return 0


def describe(model: str) -> dict[str, Any]:
    """Facts by name; raises what opening the model would raise of its config, headers and tokenizer."""
    path = find_model(model)
    checkpoint = Checkpoint.open(path)
    config = ModelConfig.from_dict(checkpoint.config)
    tokenizer = Tokenizer.from_dir(path)
    tokenizer.check(config.text.vocab_size)
    c = config.text
    full = c.layer_types.count(FULL)
    names = {canonical(name) for name in checkpoint.tensors}
    return {
        "path": str(path),
        "size": f"{checkpoint.nbytes / 1e9:.3f} GB in {len({t.file for t in checkpoint.tensors.values()})} files",
        "layers": f"{c.num_layers} ({c.num_layers - full} Gated DeltaNet, {full} attention)",
        "hidden": c.hidden_size,
        "experts": f"{c.num_experts}, {c.num_experts_per_tok} per token",
        "vocabulary": c.vocab_size,
        "context": c.max_position_embeddings,
        "quantization": str(config.quantization.default) if config.quantization else "none",
        "exceptions": len(config.quantization.overrides) if config.quantization else 0,
        "vision": any(name.startswith("visual.") for name in names),
        "mtp": any(name.startswith("mtp.") for name in names),
    }
