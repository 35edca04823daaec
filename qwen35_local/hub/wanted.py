"""Every tensor that config.json asks for, by canonical name. Pure.

A matrix goes by its module, `[.., out, in]`, as it may be packed; everything else by its tensor, whose name ends in one
of PLAIN.
"""

from collections.abc import Iterator

from ..model.config import FULL, TextConfig
from ..model.vision_config import VisionConfig

Wanted = Iterator[tuple[str, tuple[int, ...]]]
PLAIN = (".weight", ".bias", ".A_log", ".dt_bias")


def trunk(c: TextConfig) -> Wanted:
    """The language model."""
    yield "embed_tokens", (c.vocab_size, c.hidden_size)
    for i, kind in enumerate(c.layer_types):
        yield from _layer(c, f"layers.{i}", kind == FULL)
    yield "norm.weight", (c.hidden_size,)
    if not c.tie_word_embeddings:
        yield "lm_head", (c.vocab_size, c.hidden_size)


def head(c: TextConfig) -> Wanted:
    """The multi-token head."""
    yield "mtp.fc", (c.hidden_size, 2 * c.hidden_size)
    for norm in ("pre_fc_norm_embedding", "pre_fc_norm_hidden", "norm"):
        yield f"mtp.{norm}.weight", (c.hidden_size,)
    yield from _layer(c, "mtp.layers.0", full=True)


def _layer(c: TextConfig, layer: str, full: bool) -> Wanted:
    yield from ((f"{layer}.{x}_layernorm.weight", (c.hidden_size,)) for x in ("input", "post_attention"))
    yield from _attention(c, f"{layer}.self_attn") if full else _delta_net(c, f"{layer}.linear_attn")
    H, E, I, S = c.hidden_size, c.num_experts, c.moe_intermediate_size, c.shared_expert_intermediate_size  # noqa: E741
    mlp = f"{layer}.mlp"
    yield from ((f"{mlp}.gate", (E, H)), (f"{mlp}.shared_expert_gate", (1, H)))
    yield from ((f"{mlp}.shared_expert.{x}_proj", (S, H)) for x in ("gate", "up"))
    yield f"{mlp}.shared_expert.down_proj", (H, S)
    yield from ((f"{mlp}.experts.gate_up_proj", (E, 2 * I, H)), (f"{mlp}.experts.down_proj", (E, H, I)))


def _attention(c: TextConfig, name: str) -> Wanted:
    H, heads, kv = c.hidden_size, c.num_attention_heads * c.head_dim, c.num_key_value_heads * c.head_dim
    yield from ((f"{name}.q_proj", (2 * heads, H)), (f"{name}.k_proj", (kv, H)))
    yield from ((f"{name}.v_proj", (kv, H)), (f"{name}.o_proj", (H, heads)))
    yield from ((f"{name}.{x}_norm.weight", (c.head_dim,)) for x in "qk")


def _delta_net(c: TextConfig, name: str) -> Wanted:
    H, heads = c.hidden_size, c.linear_num_value_heads
    values = heads * c.linear_value_head_dim
    yield from ((f"{name}.in_proj_qkv", (c.conv_dim, H)), (f"{name}.in_proj_z", (values, H)))
    yield from ((f"{name}.in_proj_{x}", (heads, H)) for x in "ab")
    yield f"{name}.conv1d.weight", (c.conv_dim, 1, c.linear_conv_kernel_dim)
    yield from ((f"{name}.{x}", (heads,)) for x in ("A_log", "dt_bias"))
    yield from ((f"{name}.norm.weight", (c.linear_value_head_dim,)), (f"{name}.out_proj", (H, values)))


def tower(v: VisionConfig) -> Wanted:
    """The vision tower."""
    H, merged = v.hidden_size, v.hidden_size * v.merge_size**2
    pixels = (v.in_channels, v.temporal_patch_size, v.patch_size, v.patch_size)
    yield from (("visual.patch_embed.proj.weight", (H, *pixels)), ("visual.patch_embed.proj.bias", (H,)))
    yield "visual.pos_embed", (v.num_position_embeddings, H)
    for i in range(v.depth):
        block = f"visual.blocks.{i}"
        for norm in ("norm1", "norm2"):
            yield from _pair(f"{block}.{norm}", (H,))
        yield from _linear(f"{block}.attn.qkv", 3 * H, H)
        yield from _linear(f"{block}.attn.proj", H, H)
        yield from _linear(f"{block}.mlp.linear_fc1", v.intermediate_size, H)
        yield from _linear(f"{block}.mlp.linear_fc2", H, v.intermediate_size)
    yield from _pair("visual.merger.norm", (H,))
    yield from _linear("visual.merger.linear_fc1", merged, merged)
    yield from _linear("visual.merger.linear_fc2", v.out_hidden_size, merged)


def _pair(name: str, shape: tuple[int, ...]) -> Wanted:
    yield from ((f"{name}.weight", shape), (f"{name}.bias", shape))


def _linear(name: str, out: int, in_: int) -> Wanted:
    yield from ((name, (out, in_)), (f"{name}.bias", (out,)))
