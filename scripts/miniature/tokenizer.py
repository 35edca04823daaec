"""The miniature's tokenizer: byte-level BPE in the released structure, the released control tokens in order."""

import json
from collections.abc import Iterator
from pathlib import Path
from random import Random

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from qwen35_local.chat.template import render

from .families.knowledge import dictionary, facts
from .mixture import short_task, tool_tasks

BPE_ENTRIES = 2048
# Letters with their marks, single digits, runs of punctuation, line ends, spaces.
SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
# In the order of the released ids 248044 to 248076; the flag is the released `special`.
CONTROL = (
    ("<|endoftext|>", True), ("<|im_start|>", True), ("<|im_end|>", True), ("<|object_ref_start|>", True),
    ("<|object_ref_end|>", True), ("<|box_start|>", True), ("<|box_end|>", True), ("<|quad_start|>", True),
    ("<|quad_end|>", True), ("<|vision_start|>", True), ("<|vision_end|>", True), ("<|vision_pad|>", True),
    ("<|image_pad|>", True), ("<|video_pad|>", True), ("<tool_call>", False), ("</tool_call>", False),
    ("<|fim_prefix|>", False), ("<|fim_middle|>", False), ("<|fim_suffix|>", False), ("<|fim_pad|>", False),
    ("<|repo_name|>", False), ("<|file_sep|>", False), ("<tool_response>", False), ("</tool_response>", False),
    ("<think>", False), ("</think>", False), ("<|audio_start|>", True), ("<|audio_end|>", True), ("<tts_pad>", True),
    ("<tts_text_bos>", True), ("<tts_text_eod>", True), ("<tts_text_bos_single>", True), ("<|audio_pad|>", True),
)  # fmt: skip


def corpus(seed: int, samples: int = 12_000) -> Iterator[str]:
    """Text of the mixture; every fact, and the dictionary many times over for its scripts to get tokens."""
    rng = Random(f"{seed}/tokenizer")
    for _, subject, answer, thought, phrasings in facts():
        yield from (phrasing.format(x=subject) + f" {answer}" for phrasing in phrasings)
        yield thought
    for word, language, other in dictionary() * 40:
        yield f"{word} in {language} is {other}."
        yield other
    tasks = [short_task(rng) for _ in range(samples)] + [task for _ in range(60) for task in tool_tasks(rng, 8)]
    for task in tasks:
        for segment in render([*task.messages, *task.reply], task.tools, task.thinking, add_generation_prompt=False):
            yield segment.text


def train(seed: int) -> Tokenizer:
    """A tokenizer with `BPE_ENTRIES` learned entries and the control tokens above them."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(SPLIT), behavior="isolated", invert=False),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ])  # fmt: skip
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=BPE_ENTRIES, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(corpus(seed), trainer)
    if tokenizer.get_vocab_size() != BPE_ENTRIES:
        raise ValueError(f"the corpus gave {tokenizer.get_vocab_size()} entries, not {BPE_ENTRIES}")
    for content, special in CONTROL:  # one by one: the library groups by kind otherwise
        token = AddedToken(content, special=special, normalized=False)
        (tokenizer.add_special_tokens if special else tokenizer.add_tokens)([token])
    return tokenizer


def save(tokenizer: Tokenizer, directory: Path) -> None:
    """tokenizer.json, tokenizer_config.json and generation_config.json."""
    directory.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(directory / "tokenizer.json"))
    ids = {content: tokenizer.token_to_id(content) for content, _ in CONTROL}
    write_json(directory / "tokenizer_config.json", {
        "tokenizer_class": "Qwen2TokenizerFast",
        "add_bos_token": False,
        "add_prefix_space": False,
        "bos_token": None,
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
        "unk_token": None,
        "clean_up_tokenization_spaces": False,
        "model_max_length": 32768,
        "added_tokens_decoder": {
            str(ids[content]): {
                "content": content, "lstrip": False, "normalized": False, "rstrip": False, "single_word": False,
                "special": special,
            }
            for content, special in CONTROL
        },
    })  # fmt: skip
    end, text_end = ids["<|im_end|>"], ids["<|endoftext|>"]
    write_json(directory / "generation_config.json", {
        "bos_token_id": text_end, "eos_token_id": [end, text_end], "pad_token_id": text_end,
        "do_sample": True, "temperature": 0.6, "top_p": 0.95, "top_k": 20,
    })  # fmt: skip


def write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n")
