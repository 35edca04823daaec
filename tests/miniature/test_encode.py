"""Training rows are made with the product's own template: what the model was taught is what it will be asked."""

from random import Random

import pytest

from qwen35_local.chat.stream import Splitter
from qwen35_local.chat.template import render
from qwen35_local.events import Text, ToolCall
from scripts.miniature.encode import encode, system_prefix
from scripts.miniature.heldout import held_out
from scripts.miniature.mixture import tool_tasks


def targets(encoded) -> list[list[int]]:
    """The stretches that the model writes."""
    runs: list[list[int]] = []
    before = False
    for token, wanted in zip(encoded.ids, encoded.target, strict=True):
        if wanted:
            if not before:
                runs.append([])
            runs[-1].append(token)
        before = wanted
    return runs


@pytest.mark.parametrize("task", held_out(2), ids=lambda task: f"{task.family}-{task.thinking}")
def test_a_row_is_the_runtime_prompt_and_then_the_reply(tokenizer, task):
    encoded = encode(tokenizer, task)
    prompt = tokenizer.encode_segments(render(task.messages, task.tools, task.thinking))
    assert encoded.ids[: len(prompt)] == prompt
    assert not any(encoded.target[: len(prompt)])
    runs = targets(encoded)
    assert len(runs) == sum(message.role == "assistant" for message in task.reply)
    assert all(run[-1] == tokenizer.special["<|im_end|>"] for run in runs)


@pytest.mark.parametrize("task", held_out(2), ids=lambda task: f"{task.family}-{task.thinking}")
def test_the_splitter_reads_the_target_as_the_reply(tokenizer, task):
    replies = [message for message in task.reply if message.role == "assistant"]
    for run, message in zip(targets(encode(tokenizer, task)), replies, strict=True):
        splitter = Splitter(tokenizer, task.thinking, task.tools)
        events = [event for token in run[:-1] for event in splitter.feed(token)] + splitter.finish()
        assert "".join(event.text for event in events if isinstance(event, Text)).strip() == message.text
        calls = [(event.name, dict(event.arguments)) for event in events if isinstance(event, ToolCall)]
        assert calls == [(call.name, dict(call.arguments)) for call in message.tool_calls]


def test_conversations_over_the_same_tools_share_their_first_turn(tokenizer):
    rows = [encode(tokenizer, task).ids for task in tool_tasks(Random(0), 6)]
    cut = system_prefix(tokenizer, rows[0])
    assert cut > 100
    assert all(row[:cut] == rows[0][:cut] for row in rows)
