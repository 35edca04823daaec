"""Tensor names: every known layout to one of ours. Pure.

Ours are the released names without their prefix: `embed_tokens.weight`, `layers.3.mlp.gate.weight`, `norm.weight`,
`lm_head.weight`, `visual.blocks.0.norm1.weight`, `mtp.fc.weight`. Known prefixes:

    released          model.language_model.   model.visual.   mtp.            lm_head.
    mlx-lm, mlx-vlm   language_model.model.   vision_tower.   language_model.mtp.   language_model.lm_head.
    text-only         model.                                  mtp.            lm_head.
"""

_PREFIXES = (
    ("model.language_model.", ""),
    ("language_model.model.", ""),
    ("language_model.", ""),  # lm_head and mtp of MLX conversions
    ("model.visual.", "visual."),
    ("vision_tower.", "visual."),
    ("visual.", "visual."),
    ("mtp.", "mtp."),
    ("lm_head.", "lm_head."),
    ("model.mtp.", "mtp."),
    ("model.", ""),
)

# Zero-centred RMSNorm weights: released as w, used as 1 + w. `linear_attn.norm` is ones-centred and not among them;
# `merger.norm` and the tower's norm1 / norm2 are LayerNorms.
_ZERO_CENTRED = (
    ".input_layernorm.weight",
    ".post_attention_layernorm.weight",
    ".q_norm.weight",
    ".k_norm.weight",
    ".pre_fc_norm_embedding.weight",
    ".pre_fc_norm_hidden.weight",
)


def canonical(name: str) -> str:
    """Our name of a tensor or module of any known layout."""
    for prefix, ours in _PREFIXES:
        if name.startswith(prefix):
            return ours + name[len(prefix) :]
    return name


def is_zero_centred(name: str) -> bool:
    """Whether the norm weight with this canonical name is used as 1 + w."""
    return name in ("norm.weight", "mtp.norm.weight") or name.endswith(_ZERO_CENTRED)
