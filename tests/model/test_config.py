import copy

import pytest
from make_checkpoint import PRESETS, config

from qwen35_local.errors import ConfigError
from qwen35_local.model.config import FULL, LINEAR, ModelConfig, Quantization

TINY = config(PRESETS["tiny"], "F32")


def changed(**text) -> dict:
    value = copy.deepcopy(TINY)
    for name, new in text.items():
        if new is ...:
            del value["text_config"][name]
        else:
            value["text_config"][name] = new
    return value


def rope(**fields) -> dict:
    return changed(rope_parameters={**TINY["text_config"]["rope_parameters"], **fields})


def test_the_released_form_is_understood():
    c = ModelConfig.from_dict(TINY).text
    assert c.layer_types == (LINEAR, LINEAR, LINEAR, FULL) * 2
    assert c.rope.rotary_dim == 16
    assert c.rope.section == (4, 2, 2)
    assert c.conv_dim == (2 + 2 + 8) * 32
    assert ModelConfig.from_dict(TINY["text_config"]).text == c  # a text-only export has no text_config
    assert ModelConfig.from_dict(changed(layer_types=...)).text == c


@pytest.mark.parametrize(
    ("bad", "sentence"),
    [
        ({**TINY, "model_type": "llama"}, "model_type 'llama' is not supported"),
        ({"model_type": "qwen3_5_moe", "text_config": 3}, "text_config .* must be an object"),
        (changed(hidden_size=...), "hidden_size .* must be a positive whole number, not None"),
        (changed(num_experts="many"), "num_experts .* not 'many'"),
        (changed(num_experts_per_tok=17), "num_experts_per_tok 17 exceeds num_experts 16"),
        (changed(num_key_value_heads=3), "num_attention_heads 8 is not a multiple of num_key_value_heads 3"),
        (changed(linear_num_key_heads=3), "linear_num_value_heads 8 is not a multiple"),
        (changed(layer_types=["linear_attention"]), "lists 1 layers, num_hidden_layers is 8"),
        (changed(layer_types=["sliding"] * 8), "layer type 'sliding' is not supported"),
        (changed(attention_bias=True), "attention_bias"),
        (changed(hidden_act="gelu"), "hidden_act 'gelu'"),
        (changed(mlp_only_layers=[0]), "mlp_only_layers"),
        (changed(attn_output_gate=False), "attn_output_gate"),
        (changed(norm_topk_prob=False), "norm_topk_prob"),
        (changed(linear_conv_kernel_dim=1), "at least 2"),
        (changed(rms_norm_eps="small"), "rms_norm_eps .* must be a number"),
        (changed(rope_parameters=...), "no rope_parameters with rope_theta"),
        (rope(rope_type="llama3"), "rope_type 'llama3'"),
        (rope(rope_theta=0), "rope_theta must be above 1"),
        (rope(mrope_section=[1, 1, 1]), "sum to 8"),
        (rope(mrope_interleaved=False), "mrope_interleaved"),
        (rope(partial_rotary_factor=0.01), "not even"),
        (rope(rope_type="yarn"), "factor of at least 1"),
        ({**TINY, "quantization": {"quant_method": "gptq"}}, "'gptq' is not supported"),
        ({**TINY, "quantization": {"bits": 4, "group_size": 48}}, "groups of 48"),
        ({**TINY, "quantization": {"bits": 4, "group_size": 64, "mode": "mxfp4"}}, "groups of 64"),
        ({**TINY, "quantization": {"bits": 4, "group_size": 64, "mode": "q4_k"}}, "mode 'q4_k'"),
    ],
)
def test_what_is_not_supported_is_said(bad, sentence):
    with pytest.raises(ConfigError, match=sentence):
        ModelConfig.from_dict(bad)


def test_an_override_without_mode_is_affine():
    quantization = {
        "bits": 4,
        "group_size": 32,
        "mode": "mxfp4",
        "language_model.model.layers.0.mlp.gate": {"bits": 8, "group_size": 64},
        "language_model.lm_head": False,
    }
    q = ModelConfig.from_dict({**TINY, "quantization": quantization}).quantization
    assert q is not None
    assert q.of("layers.0.mlp.gate") == Quantization(8, 64, "affine")
    assert q.of("layers.1.mlp.gate") == Quantization(4, 32, "mxfp4")
    assert q.of("lm_head") is None
