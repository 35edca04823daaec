"""tokenizer.json <-> the tokenizer metadata of GGUF. Pure.

Reading it back gives the text of a tokenizer.json, so both backends tokenise with the same code: llama.cpp's own
tokenizer does not normalise Unicode, and older files of this model name the wrong split rule.
"""

import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from ..errors import TokenizerError

NORMAL, CONTROL, USER_DEFINED, UNUSED = 1, 3, 4, 5
SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)
BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
KEY = "tokenizer.ggml"


def to_metadata(spec: Mapping[str, Any], vocab_size: int, chat_template: str | None) -> dict[str, Any]:
    """Metadata from a parsed tokenizer.json, padded to the rows of the embedding table."""
    tokens = [f"[PAD{token}]" for token in range(vocab_size)]
    kinds = [UNUSED] * vocab_size
    try:
        for text, token in spec["model"]["vocab"].items():
            tokens[token], kinds[token] = text, NORMAL
        added = {entry["content"]: entry for entry in spec["added_tokens"]}
        for text, entry in added.items():
            tokens[entry["id"]], kinds[entry["id"]] = text, CONTROL if entry["special"] else USER_DEFINED
        merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in spec["model"]["merges"]]
        ends = {name: added[text]["id"] for name, text in (("eos", "<|im_end|>"), ("padding", "<|endoftext|>"))}
    except IndexError:
        raise TokenizerError(f"tokenizer.json has tokens beyond the model's {vocab_size}") from None
    except (KeyError, TypeError) as error:
        raise TokenizerError(f"tokenizer.json is damaged or of an unknown layout ({error}): fetch it again") from error
    found: dict[str, Any] = {
        f"{KEY}.model": "gpt2",
        f"{KEY}.pre": "qwen35",
        f"{KEY}.tokens": tokens,
        f"{KEY}.token_type": kinds,
        f"{KEY}.merges": merges,
        f"{KEY}.eos_token_id": ends["eos"],
        f"{KEY}.padding_token_id": ends["padding"],
        f"{KEY}.add_bos_token": False,
    }
    return found | ({"tokenizer.chat_template": chat_template} if chat_template else {})


def to_spec(metadata: Mapping[str, Any]) -> str:
    """The text of a tokenizer.json from a file's metadata; TokenizerError when something is missing or of no use."""
    tokens, kinds, merges = (metadata.get(f"{KEY}.{key}") for key in ("tokens", "token_type", "merges"))
    if metadata.get(f"{KEY}.model") != "gpt2" or not isinstance(tokens, list) or not isinstance(merges, list):
        raise TokenizerError("the GGUF file carries no byte-level BPE tokenizer: it is not a whole Qwen3.5 file")
    kinds = list(kinds) if np.ndim(kinds) == 1 else []  # pyright: ignore[reportArgumentType]
    if len(kinds) != len(tokens):
        raise TokenizerError(f"the GGUF file has {len(tokens)} tokens, but does not say of what kind each is")
    vocab: dict[str, int] = {}
    added = []
    for token, (text, kind) in enumerate(zip(tokens, kinds, strict=True)):
        if kind == NORMAL:
            vocab[text] = token
        elif kind in (CONTROL, USER_DEFINED):
            entry = {"id": token, "content": text, "special": bool(kind == CONTROL)}
            added.append(entry | dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False))
    split = {"type": "Split", "pattern": {"Regex": SPLIT}, "behavior": "Isolated", "invert": False}
    spec = {
        "version": "1.0",
        "added_tokens": added,
        "normalizer": {"type": "NFC"},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, BYTE_LEVEL]},
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": {"type": "BPE", "vocab": vocab, "merges": merges},
    }
    return json.dumps(spec)
