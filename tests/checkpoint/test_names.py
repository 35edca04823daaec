import pytest

from qwen35_local.checkpoint.names import canonical, is_zero_centred


@pytest.mark.parametrize(
    ("name", "ours"),
    [
        ("model.language_model.embed_tokens.weight", "embed_tokens.weight"),
        ("language_model.model.layers.3.mlp.switch_mlp.up_proj.scales", "layers.3.mlp.switch_mlp.up_proj.scales"),
        ("language_model.lm_head.weight", "lm_head.weight"),
        ("lm_head.weight", "lm_head.weight"),
        ("model.layers.0.linear_attn.A_log", "layers.0.linear_attn.A_log"),
        ("model.norm.weight", "norm.weight"),
        ("model.visual.blocks.0.norm1.weight", "visual.blocks.0.norm1.weight"),
        ("vision_tower.blocks.0.norm1.weight", "visual.blocks.0.norm1.weight"),
        ("mtp.layers.0.mlp.gate.weight", "mtp.layers.0.mlp.gate.weight"),
        ("language_model.mtp.fc.weight", "mtp.fc.weight"),
        ("language_model.model.layers.0.mlp.gate", "layers.0.mlp.gate"),  # a module, as config.json names it
    ],
)
def test_known_layouts_have_one_name(name, ours):
    assert canonical(name) == ours
    assert canonical(ours) == ours


def test_zero_centred_norms():
    assert all(
        map(is_zero_centred, ("norm.weight", "layers.3.self_attn.q_norm.weight", "layers.0.input_layernorm.weight"))
    )
    assert all(map(is_zero_centred, ("mtp.norm.weight", "mtp.pre_fc_norm_hidden.weight")))
    assert not any(
        map(is_zero_centred, ("layers.0.linear_attn.norm.weight", "visual.merger.norm.weight", "visual.norm1.weight"))
    )
