"""The released config.json, parsed once into frozen values; what we do not support is refused with a sentence."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from ..checkpoint.names import canonical
from ..errors import ConfigError
from .vision_config import VisionConfig

LINEAR, FULL = "linear_attention", "full_attention"
Mode = Literal["affine", "mxfp4", "mxfp8", "nvfp4"]
# mode -> its (bits, group sizes); affine takes any pair of these.
AFFINE_BITS, AFFINE_GROUPS = (2, 3, 4, 5, 6, 8), (32, 64, 128)
YARN = (2, 4)  # factors that the model card gives: to 524,288 and to about a million tokens
FP_MODES: dict[str, tuple[int, int]] = {"mxfp4": (4, 32), "nvfp4": (4, 16), "mxfp8": (8, 32)}


@dataclass(frozen=True, slots=True)
class RopeConfig:
    """Rotary positions. `section` splits the frequencies among time, height and width; `factor` 1 means no YaRN."""

    theta: float
    rotary_dim: int
    section: tuple[int, int, int]
    factor: float = 1.0
    original_context: int = 0
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    attention_factor: float | None = None


@dataclass(frozen=True, slots=True)
class TextConfig:
    """The language model. Letters as in the code: H hidden, V vocabulary, E experts, K experts per token."""

    hidden_size: int
    vocab_size: int
    layer_types: tuple[str, ...]
    rms_norm_eps: float
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    rope: RopeConfig
    linear_num_key_heads: int
    linear_num_value_heads: int
    linear_key_head_dim: int
    linear_value_head_dim: int
    linear_conv_kernel_dim: int
    num_experts: int
    num_experts_per_tok: int
    moe_intermediate_size: int
    shared_expert_intermediate_size: int
    max_position_embeddings: int
    tie_word_embeddings: bool
    mtp_num_hidden_layers: int = 0

    @property
    def num_layers(self) -> int:
        return len(self.layer_types)

    @property
    def conv_dim(self) -> int:
        """Channels through the convolution: queries, keys and values together."""
        keys = self.linear_num_key_heads * self.linear_key_head_dim
        return 2 * keys + self.linear_num_value_heads * self.linear_value_head_dim


@dataclass(frozen=True, slots=True)
class Quantization:
    """How one matrix is packed, in MLX's terms."""

    bits: int
    group_size: int
    mode: Mode

    @property
    def has_biases(self) -> bool:
        return self.mode == "affine"

    def __str__(self) -> str:
        return self.mode if self.mode != "affine" else f"affine {self.bits}-bit g{self.group_size}"


@dataclass(frozen=True, slots=True)
class QuantizationConfig:
    """The default packing and the modules that differ (None: not quantised), by canonical name."""

    default: Quantization
    overrides: Mapping[str, Quantization | None]

    def of(self, module: str) -> Quantization | None:
        return self.overrides.get(module, self.default)


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """All of config.json that the port uses."""

    text: TextConfig
    quantization: QuantizationConfig | None
    vision: VisionConfig | None  # also of conversions that have left the tower's tensors out
    image_token_id: int | None = None
    video_token_id: int | None = None

    def stretched(self, context: int | None) -> "ModelConfig":
        """With YaRN by 2 or 4 where `context` tokens need it, and only there: a static stretch costs short texts a
        little. As it is if `context` fits, if it stretches already, or if no factor is enough."""
        c, most = self.text, self.text.max_position_embeddings
        factor = next((f for f in YARN if isinstance(context, int) and most < context <= f * most), 1)
        if factor == 1 or c.rope.factor != 1.0:
            return self
        rope = replace(c.rope, factor=float(factor), original_context=most)
        return replace(self, text=replace(c, rope=rope, max_position_embeddings=factor * most))

    @classmethod
    def from_dict(cls, config: Mapping[str, Any]) -> "ModelConfig":
        model_type = config.get("model_type")
        if model_type not in ("qwen3_5_moe", "qwen3_5_moe_text"):
            raise ConfigError(f"model_type {model_type!r} is not supported: this engine runs qwen3_5_moe only")
        text = config.get("text_config", config)
        if not isinstance(text, Mapping):
            raise ConfigError("text_config in config.json must be an object")
        tied = text.get("tie_word_embeddings", config.get("tie_word_embeddings", False))
        parsed = _text_config(text, bool(tied))
        vision = config.get("vision_config")
        if vision is not None and not isinstance(vision, Mapping):
            raise ConfigError("vision_config in config.json must be an object")
        eyes = VisionConfig.from_dict(vision, parsed.hidden_size) if vision else None
        ids = (config.get("image_token_id"), config.get("video_token_id"))
        return cls(parsed, _quantization_config(config), eyes, *ids)


def _text_config(text: Mapping[str, Any], tied: bool) -> TextConfig:
    if text.get("attention_bias"):
        raise ConfigError("attention_bias true is not supported: the released model has none")
    if text.get("hidden_act", "silu") != "silu":
        raise ConfigError(f"hidden_act {text['hidden_act']!r} is not supported: the released model uses silu")
    if text.get("attn_output_gate", True) is not True:
        raise ConfigError("attn_output_gate false is not supported: the released model gates its attention")
    if text.get("mlp_only_layers"):
        raise ConfigError("mlp_only_layers is not supported: every layer of the released model is a mixture of experts")
    if text.get("norm_topk_prob", True) is not True:
        raise ConfigError("norm_topk_prob false is not supported: the released model renormalises its top experts")
    layers = _positive(text, "num_hidden_layers")
    heads = _positive(text, "num_attention_heads")
    head_dim = _positive(text, "head_dim") if text.get("head_dim") else _positive(text, "hidden_size") // heads
    config = TextConfig(
        hidden_size=_positive(text, "hidden_size"),
        vocab_size=_positive(text, "vocab_size"),
        layer_types=_layer_types(text, layers),
        rms_norm_eps=_number(text, "rms_norm_eps", 1e-6),
        num_attention_heads=heads,
        num_key_value_heads=_positive(text, "num_key_value_heads"),
        head_dim=head_dim,
        rope=_rope_config(text, head_dim),
        linear_num_key_heads=_positive(text, "linear_num_key_heads"),
        linear_num_value_heads=_positive(text, "linear_num_value_heads"),
        linear_key_head_dim=_positive(text, "linear_key_head_dim"),
        linear_value_head_dim=_positive(text, "linear_value_head_dim"),
        linear_conv_kernel_dim=_positive(text, "linear_conv_kernel_dim"),
        num_experts=_positive(text, "num_experts"),
        num_experts_per_tok=_positive(text, "num_experts_per_tok"),
        moe_intermediate_size=_positive(text, "moe_intermediate_size"),
        shared_expert_intermediate_size=_positive(text, "shared_expert_intermediate_size"),
        max_position_embeddings=_positive(text, "max_position_embeddings"),
        tie_word_embeddings=tied,
        mtp_num_hidden_layers=int(text.get("mtp_num_hidden_layers", 0)),
    )
    _divides(config.num_key_value_heads, config.num_attention_heads, "num_key_value_heads", "num_attention_heads")
    _divides(
        config.linear_num_key_heads, config.linear_num_value_heads, "linear_num_key_heads", "linear_num_value_heads"
    )
    if config.num_experts_per_tok > config.num_experts:
        raise ConfigError(f"num_experts_per_tok {config.num_experts_per_tok} exceeds num_experts {config.num_experts}")
    if config.linear_key_head_dim != config.linear_value_head_dim:
        raise ConfigError(
            f"linear_key_head_dim {config.linear_key_head_dim} and linear_value_head_dim "
            f"{config.linear_value_head_dim} differ: the released model has heads of one size"
        )
    if config.linear_conv_kernel_dim < 2:
        raise ConfigError("linear_conv_kernel_dim must be at least 2")
    return config


def _layer_types(text: Mapping[str, Any], layers: int) -> tuple[str, ...]:
    interval = text.get("full_attention_interval", 4)
    if not isinstance(interval, int) or interval < 1:
        raise ConfigError(f"full_attention_interval must be a positive whole number, not {interval!r}")
    types = text.get("layer_types") or [FULL if (i + 1) % interval == 0 else LINEAR for i in range(layers)]
    if len(types) != layers:
        raise ConfigError(f"layer_types lists {len(types)} layers, num_hidden_layers is {layers}")
    if unknown := set(types) - {LINEAR, FULL}:
        raise ConfigError(f"layer type {sorted(unknown)[0]!r} is not supported: use {LINEAR} or {FULL}")
    return tuple(types)


def _rope_config(text: Mapping[str, Any], head_dim: int) -> RopeConfig:
    """`rope_parameters` must be there: its defaults elsewhere (theta 1e4 or 1e5) are not this model's."""
    rope = text.get("rope_parameters") or text.get("rope_scaling")
    if not isinstance(rope, Mapping) or "rope_theta" not in rope:
        raise ConfigError("config.json has no rope_parameters with rope_theta: the released model has theta 1e7")
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind not in ("default", "mrope", "yarn"):
        raise ConfigError(f"rope_type {kind!r} is not supported: use default or yarn")
    partial = _number(rope, "partial_rotary_factor", _number(text, "partial_rotary_factor", 0.25))
    rotary_dim = int(head_dim * partial)
    if rotary_dim < 2 or rotary_dim % 2:
        raise ConfigError(
            f"partial_rotary_factor {partial:g} of head_dim {head_dim} rotates {rotary_dim} dims: not even"
        )
    half = rotary_dim // 2
    section = tuple(rope.get("mrope_section") or (half - 2 * (half // 3), half // 3, half // 3))
    if len(section) != 3 or sum(section) != half:
        raise ConfigError(f"mrope_section {list(section)} must be three counts that sum to {half}")
    if rope.get("mrope_interleaved", True) is not True:
        raise ConfigError("mrope_interleaved false is not supported: the released model interleaves its sections")
    theta = _number(rope, "rope_theta", 0)
    if theta <= 1:
        raise ConfigError(f"rope_theta must be above 1, not {theta:g}")
    if kind != "yarn":
        return RopeConfig(theta, rotary_dim, section)
    factor = _number(rope, "factor", 0)
    if factor < 1:
        raise ConfigError(f"YaRN needs a factor of at least 1, not {factor:g}")
    original = rope.get("original_max_position_embeddings") or text.get("max_position_embeddings")
    attention_factor = rope.get("attention_factor")
    return RopeConfig(
        theta,
        rotary_dim,
        section,
        factor,
        int(original or 0),
        _number(rope, "beta_fast", 32.0),
        _number(rope, "beta_slow", 1.0),
        None if attention_factor is None else float(attention_factor),
    )


def _quantization_config(config: Mapping[str, Any]) -> QuantizationConfig | None:
    """MLX's `quantization`: a default, and modules that differ. Without `mode` an entry is affine, always."""
    entry = config.get("quantization") or config.get("quantization_config")
    if entry is None:
        return None
    if not isinstance(entry, Mapping) or "quant_method" in entry or "bits" not in entry:
        method = entry.get("quant_method") if isinstance(entry, Mapping) else entry
        raise ConfigError(f"quantization {method!r} is not supported: use the bf16 release or an MLX conversion")
    overrides: dict[str, Quantization | None] = {}
    for name, value in entry.items():
        if isinstance(value, Mapping):
            overrides[canonical(name)] = _quantization(name, value)
        elif value is False:
            overrides[canonical(name)] = None
    return QuantizationConfig(_quantization("the default", entry), overrides)


def _quantization(name: str, entry: Mapping[str, Any]) -> Quantization:
    mode = entry.get("mode", "affine")
    bits, group_size = _positive(entry, "bits"), _positive(entry, "group_size")
    if mode in FP_MODES:
        allowed = [FP_MODES[mode]]
    elif mode == "affine":
        allowed = [(b, g) for b in AFFINE_BITS for g in AFFINE_GROUPS]
    else:
        raise ConfigError(f"quantization mode {mode!r} of {name} is not supported: use affine, {', '.join(FP_MODES)}")
    if (bits, group_size) not in allowed:
        raise ConfigError(f"{name} says {mode} with {bits} bits in groups of {group_size}, which MLX does not have")
    return Quantization(bits, group_size, mode)


def _positive(values: Mapping[str, Any], name: str) -> int:
    value = values.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ConfigError(f"{name} in config.json must be a positive whole number, not {value!r}")
    return value


def _number(values: Mapping[str, Any], name: str, default: float) -> float:
    value = values.get(name, default)
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise ConfigError(f"{name} in config.json must be a number, not {value!r}")
    return float(value)


def _divides(part: int, whole: int, part_name: str, whole_name: str) -> None:
    if whole % part:
        raise ConfigError(f"{whole_name} {whole} is not a multiple of {part_name} {part}")
