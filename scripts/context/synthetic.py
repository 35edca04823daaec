"""States of long timelines that nobody has read: random keys and values, for speeds that depend on their number."""

import mlx.core as mx

from qwen35_local.model.config import TextConfig
from qwen35_local.model.key_values import STEP, KeyValues
from qwen35_local.model.state import State

DRAWN = 1024  # tokens; more repeat them


def filled(state: State, tokens: int, c: TextConfig, dtype: mx.Dtype) -> State:
    """`state`, which is empty, as if it had read `tokens`, with room for a step more."""
    shape = (1, c.num_key_value_heads, DRAWN, c.head_dim)
    drawn = [mx.random.normal(shape, key=mx.random.key(seed)).astype(dtype) for seed in (0, 1)]
    repeats = (tokens + STEP) // DRAWN + 1
    for layer in state.layers:
        if isinstance(layer, KeyValues):
            layer.append(*(mx.tile(x, (1, 1, repeats, 1))[:, :, : tokens + STEP] for x in drawn))
            layer.length = tokens
            mx.eval(layer.arrays)
    state.tokens = tokens
    return state
