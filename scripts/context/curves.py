"""How speed and memory change with the length of a context, from synthetic states."""

import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

import mlx.core as mx
import numpy as np
from streaming.checkpoint import make

from qwen35_local.checkpoint.files import Checkpoint
from qwen35_local.model.config import FULL, ModelConfig, RopeConfig, TextConfig
from qwen35_local.model.key_values import KeyValues
from qwen35_local.model.kv_format import KvFormat
from qwen35_local.model.qwen35 import Qwen35, drained
from qwen35_local.model.state import Recurrent, State
from qwen35_local.model.weights import Weights

from .synthetic import filled

KINDS = ("hybrid", "attention")  # one layer of four has attention, or each has
TOKENS = 5  # decoded at each length, after one that warms up
PIECE = 128  # prompt tokens read at each length

# Layers and heads of the released model, for memory; the rest has no part in it.
RELEASED = TextConfig(
    hidden_size=4096, vocab_size=248320, layer_types=("linear_attention",) * 3 + (FULL,), rms_norm_eps=1e-6,
    num_attention_heads=32, num_key_value_heads=2, head_dim=256, rope=RopeConfig(1e7, 64, (11, 11, 10)),
    linear_num_key_heads=16, linear_num_value_heads=64, linear_key_head_dim=128, linear_value_head_dim=128,
    linear_conv_kernel_dim=4, num_experts=512, num_experts_per_tok=10, moe_intermediate_size=1024,
    shared_expert_intermediate_size=1024, max_position_embeddings=262144, tie_word_embeddings=False,
)  # fmt: skip
BLOCKS = 15  # of those four layers


def models(directory: Path) -> dict[str, tuple[Qwen35, int]]:
    """Kind -> (the mid-size model, its parameters); random weights in MXFP4, made once in `directory`."""
    found = {}
    for kind in KINDS:
        checkpoint = Checkpoint.open(make(directory / kind, kind))
        config = ModelConfig.from_dict(checkpoint.config)
        weights = Weights(checkpoint, config, mx.float32)
        found[kind] = Qwen35(weights, config.text), weights.parameters
    return found


def curves(
    found: dict[str, tuple[Qwen35, int]], lengths: Sequence[int], prefill: bool
) -> Iterator[tuple[int, dict[str, float]]]:
    """For each length: decode tokens per second of each kind, their ratio, milliseconds of a prompt token (hybrid)."""
    for length in lengths:
        row: dict[str, float] = {}
        for kind, (model, _) in found.items():
            state = filled(model.new_state(), length, model.config, model.dtype)
            row[kind] = decoded(model, state)
            if prefill and kind == KINDS[0]:
                began = perf_counter()
                blocks, _ = drained(model.run(mx.array([ids(PIECE)]), state))
                mx.eval(blocks)
                row["prompt ms"] = (perf_counter() - began) / PIECE * 1000
            del state
            mx.clear_cache()
        row["ratio"] = row["hybrid"] / row["attention"]
        yield length, row


def decoded(model: Qwen35, state: State) -> float:
    """Tokens per second after `state`."""
    seconds = []
    for token in ids(TOKENS + 1):
        began = perf_counter()
        blocks, _ = drained(model.run(mx.array([[token]]), state))
        mx.eval(model.logits(model.norm(blocks[0])), state.arrays)
        seconds.append(perf_counter() - began)
    return 1 / statistics.median(seconds[1:])


def ids(count: int) -> list[int]:
    return np.random.default_rng(0).integers(0, 2000, count).tolist()


def memory(tokens: int = 4096) -> dict[str, Any]:
    """Bytes of keys and values per token at the released geometry, as allocated, by bits; and what is fixed."""
    found = {}
    for bits in (16, 8, 4):
        state = filled(State(RELEASED, mx.bfloat16, KvFormat(bits)), tokens, RELEASED, mx.bfloat16)
        (attention,) = (layer for layer in state.layers if isinstance(layer, KeyValues))
        recurrent = [layer for layer in state.layers if isinstance(layer, Recurrent)]
        capacity = attention.arrays[0].shape[2]
        per_token = BLOCKS * sum(array.nbytes for array in attention.arrays) / capacity
        fixed = BLOCKS * sum(layer.conv.nbytes + layer.delta.nbytes for layer in recurrent)
        found[str(bits)] = {"bytes per token": per_token, "GiB at 262144": per_token * 262144 / 2**30,
                            "GiB at 1010000": per_token * 1010000 / 2**30, "recurrent MiB": fixed / 2**20}  # fmt: skip
    return found
