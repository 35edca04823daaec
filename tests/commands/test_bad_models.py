"""Damaged models and impossible requests: one sentence, status 2, never a traceback."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from make_checkpoint import PRESETS, draw, encode, tensors, write_safetensors


def shards(model: Path) -> list[Path]:
    return sorted(model.glob("model.safetensors-*"))


def edit_json(path: Path, change: Callable[[dict], None]) -> None:
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))


def missing_shard(model: Path) -> None:
    shards(model)[1].unlink()


def cut(keep: Callable[[int], int]) -> Callable[[Path], None]:
    def damage(model: Path) -> None:
        data = shards(model)[0].read_bytes()
        shards(model)[0].write_bytes(data[: keep(len(data))])

    return damage


def edit_header(change: Callable[[dict], None]) -> Callable[[Path], None]:
    def damage(model: Path) -> None:
        data = shards(model)[0].read_bytes()
        length = int.from_bytes(data[:8], "little")
        header = json.loads(data[8 : 8 + length])
        change(header)
        text = json.dumps(header).encode()
        shards(model)[0].write_bytes(len(text).to_bytes(8, "little") + text + data[8 + length :])

    return damage


def huge_header(model: Path) -> None:
    data = bytearray(shards(model)[0].read_bytes())
    data[:8] = (200_000_000).to_bytes(8, "little")
    shards(model)[0].write_bytes(data)


def shift(header: dict) -> None:
    first = next(iter(header.values()))
    first["data_offsets"] = [at + 4 for at in first["data_offsets"]]


def beyond(header: dict) -> None:
    last = list(header.values())[-1]
    last["data_offsets"] = [at + 10**12 for at in last["data_offsets"]]


def narrower(header: dict) -> None:
    first = next(iter(header.values()))
    first["shape"] = [first["shape"][0] * 2, first["shape"][1] // 2]


def as_integers(header: dict) -> None:
    next(iter(header.values()))["dtype"] = "I32"


def absent_tensor(model: Path) -> None:
    def change(index: dict) -> None:
        index["weight_map"]["model.language_model.nothing"] = shards(model)[0].name

    edit_json(model / "model.safetensors.index.json", change)


def text_config(**values: object) -> Callable[[Path], None]:
    return lambda model: edit_json(model / "config.json", lambda c: c["text_config"].update(values))


def other_tokenizer(model: Path) -> None:
    def change(spec: dict) -> None:
        for token in spec["added_tokens"]:
            token["id"] += 5000

    edit_json(model / "tokenizer.json", change)


def unreadable(model: Path) -> None:
    shard = shards(model)[0]
    shard.unlink()
    shard.mkdir()  # permissions do not bind root, and nobody can read a directory


def not_a_number(model: Path) -> None:
    """The whole model with one NaN, in the final norm."""
    entries = []
    for index, (name, shape, kind) in enumerate(tensors(PRESETS["tiny"])):
        values = draw(np.random.default_rng([0, index]), shape, kind)
        if name == "model.language_model.norm.weight":
            values[3] = np.nan
        entries.append((name, "F32", shape, encode(values, "F32")))
    for shard in [*shards(model), model / "model.safetensors.index.json"]:
        shard.unlink()
    write_safetensors(model / "model.safetensors", entries)


DAMAGES = {
    "1 of 3 shards are missing": missing_shard,
    "is truncated: 5 bytes": cut(lambda size: 5),
    "is truncated: the header ends": cut(lambda size: 500),
    r"is truncated: .* ends at": cut(lambda size: size // 2),
    r"truncated: .* ends at \d+, the file": cut(lambda size: size - 1),
    "leaves a gap|overlaps": edit_header(shift),
    r"truncated|leaves a gap": edit_header(beyond),
    "200000000 bytes, at most 100000000": huge_header,
    "config.json asks for": edit_header(narrower),
    "is I32, expected": edit_header(as_integers),
    "but it is not there": absent_tensor,
    r"is \[16, .* asks for 8 experts": text_config(num_experts=8),
    "model_type 'llama'": lambda model: edit_json(model / "config.json", lambda c: c.update(model_type="llama")),
    "the tokenizer has 5582 tokens and the model 704": other_tokenizer,
    "no tokenizer.json": lambda model: (model / "tokenizer.json").unlink(),
    "tokenizer.json": lambda model: (model / "tokenizer.json").write_text("{"),
    "cannot read": unreadable,
    "NaN": not_a_number,
}


@pytest.mark.parametrize("sentence", DAMAGES)
def test_damage_is_one_sentence(qwen35, model, sentence):
    DAMAGES[sentence](model)
    result = qwen35("run", "hello", "--model", str(model), "--max-tokens", "3")
    assert result.status == 2
    assert result.out == ""
    assert len(result.err.splitlines()) == 1, result.err

    assert re.search(sentence, result.err), result.err


def test_the_undamaged_model_runs(qwen35, pristine):
    result = qwen35("run", "hello", "--model", str(pristine), "--max-tokens", "3", "--no-think")
    assert result.status == 0
    assert "answer 3 tokens" in result.err or "stop" in result.err


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--temperature", "-1"], "temperature must be a number from 0 to 100, not -1.0"),
        (["--temperature", "nan"], "temperature must be a number"),
        (["--temperature", "hot"], "invalid float value: 'hot'"),
        (["--top-p", "0"], "top_p must be above 0"),
        (["--top-p", "1.5"], "top_p must be a number from 0 to 1"),
        (["--top-k", "-5"], "top_k must be"),
        (["--min-p", "2"], "min_p must be"),
        (["--repetition-penalty", "0"], "repetition_penalty must be above 0"),
        (["--max-tokens", "0"], "max_tokens must be a whole number of at least 1, not 0"),
        (["--stop", ""], "stop strings must not be empty"),
        (["--context", "0"], "context must be from 1 to the model's"),
        (["--context", "99999999"], "context must be from 1 to the model's"),
        (["--model", "/nowhere"], "no model at /nowhere"),
        (["--dtype", "int4"], "invalid choice: 'int4'"),
        (["--bogus"], "unrecognized arguments: --bogus"),
    ],
)
def test_impossible_options_are_refused(qwen35, options, sentence):
    result = qwen35("run", "hello", *options)
    assert result.status == 2
    assert result.out == ""
    assert len(result.err.splitlines()) == 1
    assert sentence in result.err


def test_a_prompt_longer_than_the_context(qwen35):
    result = qwen35("run", "word " * 100, "--context", "50")
    assert result.status == 2
    assert result.err.count("\n") == 1
    assert "and the context is 50" in result.err


def test_an_empty_prompt(qwen35):
    assert "the prompt is empty" in qwen35("run", "   ").err


def test_no_command_and_an_unknown_one(qwen35):
    assert qwen35().status == 2
    result = qwen35("frobnicate")
    assert result.status == 2
    assert "invalid choice: 'frobnicate'" in result.err
