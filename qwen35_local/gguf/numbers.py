"""Whether the numbers in a GGUF file's metadata can be those of a model or a vision part of this kind. Pure.

llama.cpp checks most of them against the shapes of tensors while loading, where a child process tries first. Of the
rest some end the process later, with the first token or picture, and some go unnoticed: those are refused here. Keys
that are missing are left to whoever needs them.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from ..errors import ConfigError

MOST_LAYERS = 512  # LLAMA_MAX_LAYERS
MOST = 2**31 - 1
INTERVAL = 4  # every how many layers there is attention, where the file does not say
COUNTS = (
    *("context_length", "embedding_length", "attention.head_count", "attention.head_count_kv", "attention.key_length"),
    *("attention.value_length", "expert_count", "ssm.conv_kernel", "ssm.state_size", "ssm.group_count"),
    *("ssm.time_step_rank", "ssm.inner_size", "full_attention_interval"),
)


def check_language(name: str, architecture: str, metadata: Mapping[str, Any]) -> None:
    """`name` is the file's, `architecture` what its keys begin with. Raises ConfigError."""
    _check(name, architecture, metadata, _language)


def check_vision(name: str, metadata: Mapping[str, Any]) -> None:
    """The same for the keys of a vision part."""
    _check(name, "clip.vision", metadata, _vision)


def _check(name: str, prefix: str, metadata: Mapping[str, Any], rules: "Rules") -> None:
    start = f"{prefix}."
    values = {key.removeprefix(start): value for key, value in metadata.items() if key.startswith(start)}
    for key, good, must in rules(values):
        if key in values and not good:
            raise ConfigError(f"{name} is damaged: {start}{key} is {_shown(values[key])}, which must be {must}")


Rules = Callable[[Mapping[str, Any]], Iterator[tuple[str, bool, str]]]  # -> (key, whether it is good, what it must be)


def _language(values: Mapping[str, Any]) -> Iterator[tuple[str, bool, str]]:
    whole = {key: value for key, value in values.items() if isinstance(value, int) and not isinstance(value, bool)}

    def within(key: str, least: int, most: int) -> tuple[str, bool, str]:
        # What is no whole number the library refuses by its type, or the plan, which needs it.
        return key, least <= whole.get(key, least) <= most, f"from {least} to {most}"

    blocks = whole.get("block_count", MOST_LAYERS)
    yield within("block_count", 1, MOST_LAYERS)
    yield within("nextn_predict_layers", 0, blocks - 1)
    layers = blocks - whole.get("nextn_predict_layers", 0)
    yield from ((key, whole.get(key, 1) > 0, "above 0") for key in COUNTS)
    interval = whole.get("full_attention_interval", INTERVAL)
    yield "block_count", layers >= interval, f"{interval} at least, or no layer has attention"
    yield within("expert_used_count", 1, whole.get("expert_count", MOST))
    rotated, most = whole.get("rope.dimension_count", 2), whole.get("attention.key_length", MOST)
    yield "rope.dimension_count", 2 <= rotated <= most and rotated % 2 == 0, f"an even number from 2 to {most}"
    if isinstance(sections := values.get("rope.dimension_sections"), np.ndarray):  # which numbers are, and strings not
        good = bool((sections[:3] > 0).any() and (sections >= 0).all())
        yield "rope.dimension_sections", good, "numbers above 0"
    heads, state = whole.get("ssm.time_step_rank"), whole.get("ssm.state_size")
    if heads and state:
        inner = whole.get("ssm.inner_size", heads * state)
        yield "ssm.inner_size", inner == heads * state, f"{heads * state}, {heads} heads of {state}"
    yield _positive(values, "attention.layer_norm_rms_epsilon")
    yield _positive(values, "rope.freq_base")


def _vision(values: Mapping[str, Any]) -> Iterator[tuple[str, bool, str]]:
    depth, heads = values.get("block_count"), values.get("attention.head_count")
    yield "block_count", not isinstance(depth, int) or depth <= MOST_LAYERS, f"{MOST_LAYERS} at most"
    if isinstance(width := values.get("embedding_length"), int):
        good = isinstance(heads, int) and heads > 0 and width % heads == 0
        yield "attention.head_count", good, f"a divisor of the {width} channels"
    yield _positive(values, "attention.layer_norm_epsilon")


def _positive(values: Mapping[str, Any], key: str) -> tuple[str, bool, str]:
    value = values.get(key)
    return key, not isinstance(value, float) or 0 < value < math.inf, "a number above 0"


def _shown(value: Any) -> str:
    return str(value.tolist() if isinstance(value, np.ndarray) else value)[:60]
