"""Our tensors -> those that llama.cpp's qwen35moe architecture expects: names, shapes, order of heads, metadata. Pure.

Three things differ from the release beside names, and nothing crashes when one is missed:
norms are stored as 1 + w; A_log as -exp(A_log); and the value heads of DeltaNet layers, which the release groups by
key head (k0v0 k0v1 … k1v0 …), lie there with the key heads innermost (k0v0 k1v0 … k0v1 …).
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from ..errors import ConfigError
from ..model.config import FULL, TextConfig
from .model import ARCHITECTURE
from .source import Source

Role = Literal["exact", "matrix", "expert"]


@dataclass(frozen=True)
class Entry:
    """One tensor of the file. `parts` yields its values along the leading axis; `packing` is how the source has it.

    `exact` tensors are small and stay float32; a `matrix` is stored as the user chooses, an `expert` stack likewise.
    """

    name: str
    shape: tuple[int, ...]
    role: Role
    packing: str
    parts: Callable[[], Iterator[np.ndarray]]


def entries(source: Source) -> Iterator[Entry]:
    """Every tensor of the file, in the order of the file."""
    c = source.config.text
    w = _Writer(source)
    yield w.matrix("token_embd", "embed_tokens", c.vocab_size, c.hidden_size)
    for i, kind in enumerate(c.layer_types):
        yield from _block(w, f"blk.{i}", f"layers.{i}", kind)
    yield w.vector("output_norm.weight", "norm.weight", c.hidden_size)
    if not c.tie_word_embeddings:
        yield w.matrix("output", "lm_head", c.vocab_size, c.hidden_size)
    if source.has("mtp.fc"):
        blk = f"blk.{c.num_layers}"
        yield w.matrix(f"{blk}.nextn.eh_proj", "mtp.fc", c.hidden_size, 2 * c.hidden_size)
        yield w.vector(f"{blk}.nextn.enorm.weight", "mtp.pre_fc_norm_embedding.weight", c.hidden_size)
        yield w.vector(f"{blk}.nextn.hnorm.weight", "mtp.pre_fc_norm_hidden.weight", c.hidden_size)
        yield w.vector(f"{blk}.nextn.shared_head_norm.weight", "mtp.norm.weight", c.hidden_size)
        yield from _block(w, blk, "mtp.layers.0", FULL)


def _block(w: "_Writer", blk: str, layer: str, kind: str) -> Iterator[Entry]:
    yield w.vector(f"{blk}.attn_norm.weight", f"{layer}.input_layernorm.weight", w.c.hidden_size)
    yield from _attention(w, blk, f"{layer}.self_attn") if kind == FULL else _delta_net(w, blk, f"{layer}.linear_attn")
    yield w.vector(f"{blk}.post_attention_norm.weight", f"{layer}.post_attention_layernorm.weight", w.c.hidden_size)
    yield from _moe(w, blk, f"{layer}.mlp")


def _attention(w: "_Writer", blk: str, attn: str) -> Iterator[Entry]:
    c = w.c
    queries, keys = c.num_attention_heads * c.head_dim, c.num_key_value_heads * c.head_dim
    yield w.matrix(f"{blk}.attn_q", f"{attn}.q_proj", 2 * queries, c.hidden_size)  # each head's query, then its gate
    yield w.matrix(f"{blk}.attn_k", f"{attn}.k_proj", keys, c.hidden_size)
    yield w.matrix(f"{blk}.attn_v", f"{attn}.v_proj", keys, c.hidden_size)
    yield w.matrix(f"{blk}.attn_output", f"{attn}.o_proj", c.hidden_size, queries)
    yield w.vector(f"{blk}.attn_q_norm.weight", f"{attn}.q_norm.weight", c.head_dim)
    yield w.vector(f"{blk}.attn_k_norm.weight", f"{attn}.k_norm.weight", c.head_dim)


def _delta_net(w: "_Writer", blk: str, net: str) -> Iterator[Entry]:
    c = w.c
    Hk, Hv, D = c.linear_num_key_heads, c.linear_num_value_heads, c.linear_value_head_dim
    heads = np.arange(Hv).reshape(Hk, Hv // Hk).T.ravel()  # file's place -> released head
    values = (heads[:, None] * D + np.arange(D)).ravel()
    channels = np.concatenate([np.arange(2 * Hk * D), 2 * Hk * D + values])  # queries and keys stay
    C, V, H = c.conv_dim, Hv * D, c.hidden_size
    yield w.matrix(f"{blk}.attn_qkv", f"{net}.in_proj_qkv", C, H, rows=channels)
    yield w.matrix(f"{blk}.attn_gate", f"{net}.in_proj_z", V, H, rows=values)
    yield w.matrix(f"{blk}.ssm_alpha", f"{net}.in_proj_a", Hv, H, rows=heads)
    yield w.matrix(f"{blk}.ssm_beta", f"{net}.in_proj_b", Hv, H, rows=heads)
    K = c.linear_conv_kernel_dim
    conv = f"{net}.conv1d.weight"
    yield w.exact(f"{blk}.ssm_conv1d.weight", (C, K), lambda: w.source.conv(conv, C, K)[channels])
    a_log, dt = f"{net}.A_log", f"{net}.dt_bias"
    yield w.exact(f"{blk}.ssm_a", (Hv,), lambda: -np.exp(w.source.vector(a_log, Hv)[heads]))
    yield w.exact(f"{blk}.ssm_dt.bias", (Hv,), lambda: w.source.vector(dt, Hv)[heads])
    yield w.vector(f"{blk}.ssm_norm.weight", f"{net}.norm.weight", D)
    yield w.matrix(f"{blk}.ssm_out", f"{net}.out_proj", H, V, columns=values)


def _moe(w: "_Writer", blk: str, mlp: str) -> Iterator[Entry]:
    c = w.c
    E, H, I, S = c.num_experts, c.hidden_size, c.moe_intermediate_size, c.shared_expert_intermediate_size  # noqa: E741
    yield w.exact(f"{blk}.ffn_gate_inp.weight", (E, H), lambda: w.source.matrix(f"{mlp}.gate", E, H))
    yield w.exact(
        f"{blk}.ffn_gate_inp_shexp.weight", (H,), lambda: w.source.matrix(f"{mlp}.shared_expert_gate", 1, H)[0]
    )
    for part, shape in (("gate", (I, H)), ("up", (I, H)), ("down", (H, I))):
        yield w.experts(f"{blk}.ffn_{part}_exps", mlp, part, (E, *shape))
    for part, shape in (("gate", (S, H)), ("up", (S, H)), ("down", (H, S))):
        yield w.matrix(f"{blk}.ffn_{part}_shexp", f"{mlp}.shared_expert.{part}_proj", *shape)


class _Writer:
    """Makes entries that read from one source."""

    def __init__(self, source: Source):
        self.source = source
        self.c: TextConfig = source.config.text

    def exact(self, name: str, shape: tuple[int, ...], read: Callable[[], np.ndarray]) -> Entry:
        return Entry(name, shape, "exact", "F32", lambda: iter([read()]))

    def vector(self, name: str, ours: str, size: int) -> Entry:
        return self.exact(name, (size,), lambda: self.source.vector(ours, size))

    def matrix(
        self,
        name: str,
        ours: str,
        out: int,
        in_: int,
        rows: np.ndarray | None = None,
        columns: np.ndarray | None = None,
    ) -> Entry:
        """A module's weight, its rows or columns taken in the order given."""

        def parts() -> Iterator[np.ndarray]:
            values = self.source.matrix(ours, out, in_)
            values = values if rows is None else values[rows]
            yield values if columns is None else values[:, columns]

        return Entry(f"{name}.weight", (out, in_), "matrix", self.source.packing(ours), parts)

    def experts(self, name: str, mlp: str, part: str, shape: tuple[int, int, int]) -> Entry:
        E, I, H = self.c.num_experts, self.c.moe_intermediate_size, self.c.hidden_size  # noqa: E741

        def parts() -> Iterator[np.ndarray]:
            return (self.source.expert(mlp, part, e, I, H) for e in range(E))

        return Entry(f"{name}.weight", shape, "expert", self.source.expert_packing(mlp), parts)


def metadata(c: TextConfig, name: str, mtp: bool) -> Mapping[str, Any]:
    """What llama.cpp reads of config.json, under its keys."""
    interval = c.layer_types.index(FULL) + 1 if FULL in c.layer_types else c.num_layers + 1
    if any((kind == FULL) != ((i + 1) % interval == 0) for i, kind in enumerate(c.layer_types)):
        raise ConfigError("layer_types has no fixed interval of full attention, which GGUF needs")
    values: dict[str, Any] = {
        "block_count": c.num_layers + mtp,
        "context_length": c.max_position_embeddings,
        "embedding_length": c.hidden_size,
        "attention.head_count": c.num_attention_heads,
        "attention.head_count_kv": c.num_key_value_heads,
        "attention.key_length": c.head_dim,
        "attention.value_length": c.head_dim,
        "attention.layer_norm_rms_epsilon": c.rms_norm_eps,
        "rope.dimension_count": c.rope.rotary_dim,
        "rope.dimension_sections": [*c.rope.section, 0],
        "rope.freq_base": c.rope.theta,
        "expert_count": c.num_experts,
        "expert_used_count": c.num_experts_per_tok,
        "expert_feed_forward_length": c.moe_intermediate_size,
        "expert_shared_feed_forward_length": c.shared_expert_intermediate_size,
        "ssm.conv_kernel": c.linear_conv_kernel_dim,
        "ssm.state_size": c.linear_key_head_dim,
        "ssm.group_count": c.linear_num_key_heads,
        "ssm.time_step_rank": c.linear_num_value_heads,
        "ssm.inner_size": c.linear_num_value_heads * c.linear_value_head_dim,
        "full_attention_interval": interval,
    }
    if mtp:
        values["nextn_predict_layers"] = 1
    if c.rope.factor != 1:
        values |= {
            "rope.scaling.type": "yarn",
            "rope.scaling.factor": c.rope.factor,
            "rope.scaling.original_context_length": c.rope.original_context,
            "rope.scaling.yarn_beta_fast": c.rope.beta_fast,
            "rope.scaling.yarn_beta_slow": c.rope.beta_slow,
        }
        if c.rope.attention_factor is not None:
            values["rope.scaling.yarn_attn_factor"] = c.rope.attention_factor
    general = {"general.architecture": ARCHITECTURE, "general.type": "model", "general.name": name}
    return general | {f"{ARCHITECTURE}.{key}": value for key, value in values.items()}
