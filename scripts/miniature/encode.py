"""Tasks -> token ids with the places where the loss counts, by the product's own template and tokenizer."""

from dataclasses import dataclass

from qwen35_local.chat.template import render
from qwen35_local.chat.tokenizer import Tokenizer

from .task import Task


@dataclass(frozen=True, slots=True)
class Encoded:
    """`ids` of the whole conversation; `target[i]` says that ids[i] is written by the model."""

    ids: list[int]
    target: list[bool]


def encode(tokenizer: Tokenizer, task: Task) -> Encoded:
    """Everything that the model itself writes, `<|im_end|>` included, is a target; the line end after it is not."""
    ids: list[int] = []
    target: list[bool] = []
    for index, message in enumerate(task.reply):
        if message.role != "assistant":
            continue
        before = [*task.messages, *task.reply[:index]]
        prompt = tokenizer.encode_segments(render(before, task.tools, task.thinking))
        whole = tokenizer.encode_segments(render([*before, message], task.tools, add_generation_prompt=False))
        whole = whole[: len(whole) - whole[::-1].index(tokenizer.special["<|im_end|>"])]
        if whole[: len(prompt)] != prompt or prompt[: len(ids)] != ids:
            raise ValueError(f"the prompt is not a prefix of the conversation: {task}")
        target += [False] * (len(prompt) - len(target)) + [True] * (len(whole) - len(prompt))
        ids = whole
    return Encoded(ids, target)


def system_prefix(tokenizer: Tokenizer, ids: list[int]) -> int:
    """Length of the system turn that opens a conversation, its line end included."""
    return ids.index(tokenizer.special["<|im_end|>"]) + 2
