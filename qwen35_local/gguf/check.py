"""Whether a GGUF model has every tensor that its own metadata asks for, in its shape. Pure."""

import math
from collections.abc import Iterator

from .model import GgufModel

Shape = tuple[int, ...]


def tensor_problems(model: GgufModel) -> Iterator[str]:
    """What is missing or misshapen in the trunk, one sentence each. Raises ConfigError if a size is not stated."""
    for name, shape in wanted(model):
        tensor = model.tensors.get(name)
        if tensor is None:
            if name != "output.weight":  # a model without one uses the embedding for its head
                yield f"{name} is missing"
        elif _flat(tensor.shape) != _flat(shape):
            yield f"{name} is {list(tensor.shape)}, the metadata asks for {list(shape)}"


def wanted(model: GgufModel) -> Iterator[tuple[str, Shape]]:
    """(tensor, shape with rows first) of the trunk, by llama.cpp's names for qwen35moe."""
    hidden, interval = model.number("embedding_length"), model.number("full_attention_interval")
    yield "token_embd.weight", (_vocabulary(model), hidden)
    for layer in range(model.layers):
        blk = f"blk.{layer}"
        yield f"{blk}.attn_norm.weight", (hidden,)
        full = (layer + 1) % interval == 0
        for name, shape in (_attention if full else _delta_net)(model, hidden):
            yield f"{blk}.{name}", shape
        yield f"{blk}.post_attention_norm.weight", (hidden,)
        for name, shape in _experts(model, hidden, fused=f"{blk}.ffn_gate_up_exps.weight" in model.tensors):
            yield f"{blk}.{name}", shape
    yield "output_norm.weight", (hidden,)
    yield "output.weight", (_vocabulary(model), hidden)


def _vocabulary(model: GgufModel) -> int:
    tokens = model.metadata.get("tokenizer.ggml.tokens")
    return len(tokens) if isinstance(tokens, list) else model.vocab_size


def _attention(model: GgufModel, hidden: int) -> Iterator[tuple[str, Shape]]:
    dim = model.number("attention.key_length")
    queries, keys = model.number("attention.head_count") * dim, model.number("attention.head_count_kv") * dim
    yield "attn_q.weight", (2 * queries, hidden)  # each head's query, then its gate
    yield from (("attn_k.weight", (keys, hidden)), ("attn_v.weight", (keys, hidden)))
    yield "attn_output.weight", (hidden, queries)
    yield from (("attn_q_norm.weight", (dim,)), ("attn_k_norm.weight", (dim,)))


def _delta_net(model: GgufModel, hidden: int) -> Iterator[tuple[str, Shape]]:
    keys = 2 * model.number("ssm.group_count") * model.number("ssm.state_size")
    heads, values = model.number("ssm.time_step_rank"), model.number("ssm.inner_size")
    yield from (("attn_qkv.weight", (keys + values, hidden)), ("attn_gate.weight", (values, hidden)))
    yield from (("ssm_alpha.weight", (heads, hidden)), ("ssm_beta.weight", (heads, hidden)))
    yield "ssm_conv1d.weight", (keys + values, model.number("ssm.conv_kernel"))
    yield from (("ssm_a", (heads,)), ("ssm_dt.bias", (heads,)))
    yield from (("ssm_norm.weight", (values // max(heads, 1),)), ("ssm_out.weight", (hidden, values)))


def _experts(model: GgufModel, hidden: int, fused: bool) -> Iterator[tuple[str, Shape]]:
    E, inner = model.number("expert_count"), model.number("expert_feed_forward_length")
    shared = model.number("expert_shared_feed_forward_length")
    yield from (("ffn_gate_inp.weight", (E, hidden)), ("ffn_gate_inp_shexp.weight", (hidden,)))
    if fused:
        yield "ffn_gate_up_exps.weight", (E, 2 * inner, hidden)
    else:
        yield from ((f"ffn_{half}_exps.weight", (E, inner, hidden)) for half in ("gate", "up"))
    yield "ffn_down_exps.weight", (E, hidden, inner)
    yield from ((f"ffn_{half}_shexp.weight", (shared, hidden)) for half in ("gate", "up"))
    yield "ffn_down_shexp.weight", (hidden, shared)


def _flat(shape: Shape) -> Shape:
    """A vector may be stored as one row: both load."""
    return tuple(n for n in shape if n != 1) or (math.prod(shape),)
