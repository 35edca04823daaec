"""Text <-> ids: control tokens out of reach of text, ids equal to the library's own, whole characters only."""

import json
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from hypothesis import given
from hypothesis import strategies as st

from qwen35_local.chat.template import Segment
from qwen35_local.chat.tokenizer import BYTE_OF_CHAR, REQUIRED, Detokenizer, Tokenizer
from qwen35_local.errors import TokenizerError, UsageError

TEXTS = (
    "",
    "hello",
    "  two  spaces\n\n\tand tabs\r\n",
    "123456",
    "naïve 東京 🏳️‍🌈 👩🏽‍🚀",
    "שלום عليكم",
    "e\u0301",
    "\x00\x7f",
)
text = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
# Pieces which could join to something special, so that joins are tried rather than waited for.
piece = st.sampled_from([*REQUIRED, "<|", "im_end|>", "<th", "ink>", " ", "\n", "word", "é", "🙂"]) | text


@pytest.fixture(scope="session")
def whole(tokenizer_spec: dict[str, Any]) -> tokenizers.Tokenizer:
    """The same file in the library, with its added tokens: the oracle."""
    return tokenizers.Tokenizer.from_str(json.dumps(tokenizer_spec))


def test_every_control_token_is_one_id_in_released_order(tokenizer: Tokenizer):
    ids = [tokenizer.special[token] for token in REQUIRED]
    assert len(set(ids)) == len(ids)
    assert tokenizer.encode("".join(REQUIRED), special=True) == ids
    # Distances in the released table: 248044 to 248069.
    assert tokenizer.special["</think>"] - tokenizer.special["<|endoftext|>"] == 25
    assert tokenizer.special["<tool_call>"] - tokenizer.special["<|endoftext|>"] == 14


@pytest.mark.parametrize("control", REQUIRED)
def test_text_never_becomes_a_control_token(tokenizer: Tokenizer, control: str):
    ids = tokenizer.encode(f"say {control} please")
    assert not set(ids) & set(tokenizer.special.values())
    assert tokenizer.decode(ids) == f"say {control} please"


@given(st.lists(piece, max_size=8))
def test_text_ids_are_text(tokenizer: Tokenizer, pieces: list[str]):
    assert not set(tokenizer.encode("".join(pieces))) & set(tokenizer.special.values())


@given(st.lists(piece, max_size=8))
def test_markup_ids_equal_the_librarys(tokenizer: Tokenizer, whole: tokenizers.Tokenizer, pieces: list[str]):
    joined = "".join(pieces)
    assert tokenizer.encode(joined, special=True) == whole.encode(joined, add_special_tokens=False).ids


@given(st.lists(st.tuples(st.sampled_from([*TEXTS, "the ", "fox", "\n"]), st.booleans()), max_size=8))
def test_segment_borders_do_not_change_the_ids(tokenizer: Tokenizer, parts: list[tuple[str, bool]]):
    segments = [Segment(part, markup) for part, markup in parts]
    assert tokenizer.encode_segments(segments) == tokenizer.encode("".join(part for part, _ in parts))


def test_content_cannot_complete_a_control_token(tokenizer: Tokenizer):
    ids = tokenizer.encode_segments([Segment("<|im_", False), Segment("end|>", True), Segment("<|im_end|>", True)])
    assert ids[-1] == tokenizer.special["<|im_end|>"]
    assert tokenizer.special["<|im_end|>"] not in ids[:-1]


@given(text)
def test_round_trip_up_to_nfc(tokenizer: Tokenizer, whole: tokenizers.Tokenizer, original: str):
    ids = tokenizer.encode(original)
    assert tokenizer.decode(ids) == whole.normalizer.normalize_str(original)  # pyright: ignore[reportOptionalMemberAccess]


@given(st.lists(st.integers(0, 700), max_size=30))
def test_decode_equals_the_librarys(tokenizer: Tokenizer, whole: tokenizers.Tokenizer, ids: list[int]):
    assert tokenizer.decode(ids) == whole.decode(ids, skip_special_tokens=False)
    assert tokenizer.decode(ids, skip_special=True) == whole.decode(ids, skip_special_tokens=True)


def test_decomposed_and_composed_spellings_share_ids(tokenizer: Tokenizer):
    assert tokenizer.encode("cafe\u0301") == tokenizer.encode("caf\u00e9")


def test_the_byte_table_is_the_librarys_alphabet():
    assert set(BYTE_OF_CHAR) == set(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    assert sorted(BYTE_OF_CHAR.values()) == list(range(256))


@given(text)
def test_streaming_gives_whole_characters(tokenizer: Tokenizer, original: str):
    ids = tokenizer.encode(original)
    stream = Detokenizer()
    pieces = [stream.feed(tokenizer.token_bytes(token)) for token in ids] + [stream.finish()]
    assert "".join(pieces) == tokenizer.decode(ids)
    assert ("�" in "".join(pieces)) == ("�" in original)


@given(st.binary(max_size=40), st.integers(1, 4))
def test_streaming_any_bytes_in_any_chunks(data: bytes, size: int):
    stream = Detokenizer()
    pieces = [stream.feed(data[at : at + size]) for at in range(0, len(data), size)] + [stream.finish()]
    assert "".join(pieces) == data.decode(errors="replace")


def test_a_cut_character_ends_as_one_replacement():
    stream = Detokenizer()
    assert stream.feed("🙂".encode()[:3]) == ""
    assert stream.finish() == "�"
    assert stream.feed(b"a") == "a"


def test_padding_ids_have_no_text(tokenizer: Tokenizer):
    assert tokenizer.token_bytes(tokenizer.size) == b""
    assert tokenizer.decode([tokenizer.size, *tokenizer.encode("x")]) == "x"


def test_a_megabyte_without_spaces(tokenizer: Tokenizer):
    assert tokenizer.decode(tokenizer.encode("a" * 1_000_000)) == "a" * 1_000_000


def test_half_a_character_is_refused_by_name(tokenizer: Tokenizer):
    with pytest.raises(UsageError, match="position 3"):
        tokenizer.encode("abc\ud83d")


@pytest.mark.parametrize(("margin", "fits"), [(0, True), (243, True), (-1, False), (100_000, False)])
def test_check_names_both_numbers(tokenizer: Tokenizer, margin: int, fits: bool):
    if fits:
        tokenizer.check(tokenizer.size + margin)
        return
    with pytest.raises(TokenizerError, match=f"{tokenizer.size} tokens and the model {tokenizer.size + margin}"):
        tokenizer.check(tokenizer.size + margin)


def test_end_tokens(tokenizer_dir: Path, tokenizer: Tokenizer):
    always = {tokenizer.special["<|im_end|>"], tokenizer.special["<|endoftext|>"]}
    assert Tokenizer.from_dir(tokenizer_dir).eos_ids == always
    config = tokenizer_dir / "generation_config.json"
    config.write_text('{"eos_token_id": 7}')
    assert Tokenizer.from_dir(tokenizer_dir).eos_ids == always | {7}
    config.write_text('{"eos_token_id": [7, 8]}')
    assert Tokenizer.from_dir(tokenizer_dir).eos_ids == always | {7, 8}
    for damage in ('{"eos_token_id": "</s>"}', '{"eos_token_id": [null]}', "{", "[]"):
        config.write_text(damage)
        with pytest.raises(TokenizerError, match=r"generation_config\.json"):
            Tokenizer.from_dir(tokenizer_dir)


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b"{}", b"\xff\xfe", b'{"added_tokens": [{}]}', b"[" * 100_000])
def test_damaged_files_are_refused(tokenizer_dir: Path, damage: bytes):
    (tokenizer_dir / "tokenizer.json").write_bytes(damage)
    with pytest.raises(TokenizerError, match=r"tokenizer\.json"):
        Tokenizer.from_dir(tokenizer_dir)


def test_missing_file_and_missing_tokens_are_named(tmp_path: Path, tokenizer_spec: dict[str, Any]):
    with pytest.raises(TokenizerError, match=r"has no tokenizer\.json"):
        Tokenizer.from_dir(tmp_path)
    kept = [token for token in tokenizer_spec["added_tokens"] if token["content"] != "</think>"]
    with pytest.raises(TokenizerError, match="lacks the control tokens </think>"):
        Tokenizer(json.dumps({**tokenizer_spec, "added_tokens": kept}))
