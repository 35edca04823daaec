"""What several test directories need: a small byte-level tokenizer with the structure of the released one."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from make_checkpoint import write
from tokenizers import Regex, Tokenizer, decoders, normalizers, pre_tokenizers
from tokenizers import models as bpe_models
from tokenizers.trainers import BpeTrainer

from qwen35_local.chat.tokenizer import Tokenizer as ChatTokenizer

# The released control tokens in the released order; the first has id 248044 there.
SPECIAL = (
    *("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|object_ref_start|>", "<|object_ref_end|>", "<|box_start|>"),
    *("<|box_end|>", "<|quad_start|>", "<|quad_end|>", "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>"),
    *("<|image_pad|>", "<|video_pad|>"),
)
NOT_SPECIAL = (
    *("<tool_call>", "</tool_call>", "<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>", "<|fim_pad|>"),
    *("<|repo_name|>", "<|file_sep|>", "<tool_response>", "</tool_response>", "<think>", "</think>"),
)
PRETOKENIZE = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)
CORPUS = """The quick brown fox jumps over the lazy dog. <function=get_weather>\n<parameter=city>\nParis\n</parameter>
Der schnelle braune Fuchs springt über den faulen Hund. def main():\n    return {"answer": 42, "why": None}
Быстрая лиса прыгает через ленивую собаку. 敏捷的棕色狐狸跳过懒狗。 素早い茶色の狐。 الثعلب البني السريع يقفز.
You have access to the following functions: think about the user, the assistant and the system.\n\n</function>
"""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--all-backends", action="store_true", help="a missing backend fails its tests, as in CI")
    parser.addoption("--openai-api", type=Path, metavar="FILE", help="openapi.json of github.com/openai/openai-openapi")


def pytest_unconfigure() -> None:
    """llama-cpp-python opens /dev/null twice when imported and never closes it, which is an error here at exit."""
    if utils := sys.modules.get("llama_cpp._utils"):
        utils.outnull_file.close()
        utils.errnull_file.close()


@pytest.fixture(scope="session")
def llama_cpp(pytestconfig: pytest.Config) -> None:
    """Asked for by whatever needs the library. `--all-backends`, which CI gives, makes its absence a failure."""
    try:
        import llama_cpp  # noqa: F401  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        message = f"llama-cpp-python is not installed ({error}): run scripts/wheel-llamacpp"
        if pytestconfig.getoption("--all-backends"):
            pytest.fail(message)
        pytest.skip(message)


@pytest.fixture(scope="session")
def tokenizer_spec() -> dict[str, Any]:
    """A parsed tokenizer.json: byte-level BPE, NFC, the released regex and control tokens, a few hundred merges."""
    bpe = Tokenizer(bpe_models.BPE())
    bpe.normalizer = normalizers.NFC()
    split = pre_tokenizers.Split(Regex(PRETOKENIZE), behavior="isolated", invert=False)
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    bpe.pre_tokenizer = pre_tokenizers.Sequence([split, byte_level])
    bpe.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    bpe.train_from_iterator([CORPUS] * 4, BpeTrainer(vocab_size=600, initial_alphabet=alphabet, show_progress=False))
    spec = json.loads(bpe.to_str())
    first = len(spec["model"]["vocab"])
    spec["added_tokens"] = [
        {
            "id": first + index,
            "content": text,
            "special": text in SPECIAL,
            **dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False),
        }
        for index, text in enumerate(SPECIAL + NOT_SPECIAL)
    ]
    return spec


@pytest.fixture(scope="session")
def tokenizer(tokenizer_spec: dict[str, Any]) -> ChatTokenizer:
    return ChatTokenizer(json.dumps(tokenizer_spec))


@pytest.fixture
def tokenizer_dir(tokenizer_spec: dict[str, Any], tmp_path: Path) -> Path:
    """A directory with a tokenizer.json, to be damaged at will."""
    (tmp_path / "tokenizer.json").write_text(json.dumps(tokenizer_spec))
    return tmp_path


@pytest.fixture(scope="session")
def pristine(tokenizer_spec: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole model directory: the tiny random checkpoint with the small tokenizer. Not to be changed."""
    path = write(tmp_path_factory.mktemp("models") / "tiny", "tiny", "F32")
    (path / "tokenizer.json").write_text(json.dumps(tokenizer_spec))
    return path


@pytest.fixture(scope="session")
def sighted(tokenizer_spec: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`pristine` with a vision tower. Not to be changed."""
    first = len(tokenizer_spec["model"]["vocab"])
    path = write(tmp_path_factory.mktemp("models") / "sighted", "tiny", "F32", vision=True, first_special=first)
    (path / "tokenizer.json").write_text(json.dumps(tokenizer_spec))
    return path


@pytest.fixture(scope="session")
def golden() -> dict[str, np.ndarray]:
    """What transformers computes on the tiny checkpoints (scripts/make_golden.py)."""
    return dict(np.load(Path(__file__).parent / "golden" / "tiny.npz"))


@pytest.fixture(scope="session")
def golden_decode() -> dict[str, np.ndarray]:
    """A prompt of 200 tokens and 64 greedy steps in transformers, in float32 (scripts/make_golden.py)."""
    return dict(np.load(Path(__file__).parent / "golden" / "tiny_decode.npz"))
