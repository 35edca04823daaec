"""What a GGUF model must hold, against what the converter writes (whose tensors are those of llama.cpp's own)."""

from dataclasses import replace

import pytest

from qwen35_local.errors import ConfigError
from qwen35_local.gguf.check import tensor_problems, wanted
from qwen35_local.gguf.model import ARCHITECTURE, GgufModel


@pytest.fixture
def model(tiny_gguf):
    return GgufModel.open(tiny_gguf)


def changed(model: GgufModel, **values: int) -> list[str]:
    metadata = dict(model.metadata) | {f"{ARCHITECTURE}.{key.replace('__', '.')}": v for key, v in values.items()}
    return list(tensor_problems(replace(model, metadata=metadata)))


def test_a_whole_model_has_all_of_it_and_nothing_else(model):
    assert list(tensor_problems(model)) == []
    trunk = {name for name in model.tensors if not name.startswith(f"blk.{model.layers}.")}
    assert {name for name, _ in wanted(model)} == trunk


def test_every_tensor_is_missed(model):
    for name, _ in wanted(model):
        rest = {other: tensor for other, tensor in model.tensors.items() if other != name}
        missing = list(tensor_problems(replace(model, tensors=rest)))
        assert missing == ([] if name == "output.weight" else [f"{name} is missing"])


@pytest.mark.parametrize(
    ("key", "touched"),
    [
        ("expert_count", "ffn_down_exps.weight"),
        ("expert_feed_forward_length", "ffn_gate_exps.weight"),
        ("expert_shared_feed_forward_length", "ffn_up_shexp.weight"),
        ("attention__head_count", "attn_q.weight"),
        ("attention__head_count_kv", "attn_k.weight"),
        ("attention__key_length", "attn_q_norm.weight"),
        ("ssm__group_count", "attn_qkv.weight"),
        ("ssm__inner_size", "ssm_out.weight"),
        ("ssm__time_step_rank", "ssm_alpha.weight"),
        ("ssm__conv_kernel", "ssm_conv1d.weight"),
        ("embedding_length", "token_embd.weight"),
    ],
)
def test_metadata_that_lies(model, key, touched):
    value = 2 * model.number(key.replace("__", "."))
    problems = changed(model, **{key: value})
    assert any(touched in problem and "the metadata asks for" in problem for problem in problems)


def test_more_layers_than_there_are(model):
    assert f"blk.{model.layers + 1}.attn_norm.weight is missing" in changed(
        model, block_count=model.number("block_count") + 2
    )


def test_a_size_that_is_not_stated(model):
    metadata = {key: value for key, value in model.metadata.items() if not key.endswith("expert_count")}
    with pytest.raises(ConfigError, match=r"lacks qwen35moe\.expert_count"):
        list(tensor_problems(replace(model, metadata=metadata)))
