"""A tokenizer comes back from a GGUF file as it went in."""

import json

import pytest

from qwen35_local.chat.tokenizer import Tokenizer
from qwen35_local.errors import TokenizerError
from qwen35_local.gguf.model import GgufModel
from qwen35_local.gguf.vocabulary import to_metadata, to_spec

PROBES = (
    "The quick brown fox's 1234 jumps;\r\n\n  def main():\n\treturn {'a': 1.5}",
    "cafe\u0301 敏捷的棕色狐狸 \U0001f98a\U0001f469\u200d\U0001f680 नमस्ते الثعلب",
    "<|im_start|>user\n<think>x</think><tool_call>{}</tool_call><|im_end|>",
    " \u00a0\u2003 \x00\x7f\ufeff",
)


def test_the_file_tokenises_as_the_directory_does(tiny_gguf, tokenizer):
    again = Tokenizer(to_spec(GgufModel.open(tiny_gguf).metadata))
    assert again.special == tokenizer.special
    assert (again.size, again.eos_ids) == (tokenizer.size, tokenizer.eos_ids)
    for text in PROBES:
        for special in (False, True):
            ids = tokenizer.encode(text, special)
            assert again.encode(text, special) == ids
            assert again.decode(ids, skip_special=True) == tokenizer.decode(ids, skip_special=True)


def test_padding_is_marked_and_dropped(tokenizer_spec, tokenizer):
    metadata = to_metadata(tokenizer_spec, 704, "{{ template }}")
    assert len(metadata["tokenizer.ggml.tokens"]) == len(metadata["tokenizer.ggml.token_type"]) == 704
    assert metadata["tokenizer.ggml.tokens"][703] == "[PAD703]"
    assert metadata["tokenizer.ggml.eos_token_id"] == tokenizer.special["<|im_end|>"]
    assert metadata["tokenizer.chat_template"] == "{{ template }}"
    assert "[PAD703]" not in json.loads(to_spec(metadata))["model"]["vocab"]


def test_refusals(tokenizer_spec):
    with pytest.raises(TokenizerError, match="beyond the model's 500"):
        to_metadata(tokenizer_spec, 500, None)
    with pytest.raises(TokenizerError, match="unknown layout"):
        to_metadata({"model": {}}, 500, None)
    metadata = to_metadata(tokenizer_spec, 704, None)
    with pytest.raises(TokenizerError, match="no byte-level BPE tokenizer"):
        to_spec(metadata | {"tokenizer.ggml.model": "llama"})
    with pytest.raises(TokenizerError, match="does not say of what kind"):
        to_spec(metadata | {"tokenizer.ggml.token_type": [1, 2]})
