"""`qwen35 info MODEL`: what a model directory or GGUF file holds, from headers alone (no weights are read)."""

import argparse
import json
from collections import Counter
from typing import Any

from ..backends import gguf_of
from ..chat.tokenizer import Tokenizer
from ..checkpoint.files import Checkpoint
from ..checkpoint.locate import find_model
from ..checkpoint.names import canonical
from ..gguf.model import GgufModel
from ..gguf.vision import find_vision
from ..gguf.vocabulary import to_spec
from ..hub.progress import counted, size
from ..model.config import FULL, ModelConfig

SAID = {True: "yes", False: "no"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "model", nargs="?", default="miniature", help="a directory, a GGUF file, a cached repository or 'miniature'"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> int:
    found = describe(args.model)
    if args.json:
        print(json.dumps(found, indent=1))
        return 0
    width = max(map(len, found))
    for name, value in found.items():
        print(f"{name:{width}}  {SAID.get(value, value) if isinstance(value, bool) else value}")
    return 0


def describe(model: str) -> dict[str, Any]:
    """Facts by name; raises what opening the model would raise of its config, headers and tokenizer."""
    if (file := gguf_of(model)) is not None:
        return describe_gguf(GgufModel.open(file))
    path = find_model(model)
    checkpoint = Checkpoint.open(path)
    config = ModelConfig.from_dict(checkpoint.config)
    tokenizer = Tokenizer.from_dir(path)
    tokenizer.check(config.text.vocab_size)
    c = config.text
    full = c.layer_types.count(FULL)
    names = {canonical(name): tensor.nbytes for name, tensor in checkpoint.tensors.items()}
    tower = sum(nbytes for name, nbytes in names.items() if name.startswith("visual."))
    return {
        "path": str(path),
        "size": f"{size(checkpoint.nbytes)} in {counted(len({t.file for t in checkpoint.tensors.values()}), 'file')}",
        "layers": f"{c.num_layers} ({c.num_layers - full} Gated DeltaNet, {full} attention)",
        "hidden": c.hidden_size,
        "experts": f"{c.num_experts}, {c.num_experts_per_tok} per token",
        "vocabulary": c.vocab_size,
        "context": c.max_position_embeddings,
        "quantization": str(config.quantization.default) if config.quantization else "none",
        "exceptions": len(config.quantization.overrides) if config.quantization else 0,
        "vision": tower > 0,
        **(
            {"tower": f"{size(tower)}, {counted(config.vision.depth, 'block')} of {config.vision.hidden_size} channels"}
            if tower and config.vision
            else {}
        ),
        "mtp": any(name.startswith("mtp.") for name in names),
    }


def describe_gguf(model: GgufModel) -> dict[str, Any]:
    """The same facts of a GGUF file, under the same names."""
    tokenizer = Tokenizer(to_spec(model.metadata), name=model.path.name)
    tokenizer.check(model.vocab_size)
    full = model.layers // model.number("full_attention_interval", 4)
    types = Counter(tensor.type.name for tensor in model.tensors.values())
    part = find_vision(model)
    return {
        "path": str(model.path),
        "size": f"{size(model.nbytes)} in {counted(len(model.files), 'file')}",
        "layers": f"{model.layers} ({model.layers - full} Gated DeltaNet, {full} attention)",
        "hidden": model.number("embedding_length"),
        "experts": f"{model.number('expert_count')}, {model.number('expert_used_count')} per token",
        "vocabulary": model.vocab_size,
        "context": model.number("context_length"),
        "quantization": f"{model.quantization} ({', '.join(f'{count} {name}' for name, count in types.most_common())})",
        "exceptions": 0,
        "vision": part is not None,
        **({"tower": f"{size(part.nbytes)}, {part.path.name}"} if part else {}),
        "mtp": model.number("nextn_predict_layers", 0) > 0,
    }
