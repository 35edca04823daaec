"""The miniature's generated data: the same every time, honest about what is held out, and right."""

import json
import re
from random import Random

import pytest

from qwen35_local.engine import Message
from scripts.miniature.families.arithmetic import add_columns, arithmetic, subtract_columns
from scripts.miniature.families.context import extract_json, needle, recall
from scripts.miniature.families.knowledge import dictionary, fact, facts, translation
from scripts.miniature.families.tools import CASES, TOOLS, tool_use
from scripts.miniature.heldout import held_out
from scripts.miniature.items import items_of
from scripts.miniature.mixture import long_task, short_task, tool_tasks
from scripts.miniature.task import Task

FAMILIES = (arithmetic, fact, translation, recall, needle, extract_json, tool_use)


def drawn(seed: int) -> list[Task]:
    rng = Random(seed)
    return [*(short_task(rng) for _ in range(200)), *tool_tasks(rng, 8), long_task(rng, 1024)]


def question(task: Task) -> str:
    return task.messages[-1].text


def test_one_seed_gives_one_stream_and_another_seed_another():
    assert drawn(1) == drawn(1)
    assert drawn(1) != drawn(2)


@pytest.mark.parametrize("maker", FAMILIES)
def test_no_conversation_is_both_trained_and_held_out(maker):
    def asked(task: Task) -> str:
        return "\n".join(message.text for message in task.messages)

    rng = Random(0)
    trained = {asked(maker(rng)) for _ in range(1500)}
    tested = {asked(maker(rng, held_out=True)) for _ in range(150)}
    assert not trained & tested


def test_held_out_numbers_are_never_trained_in_any_wording():
    def numbers(task: Task) -> tuple[str, ...]:
        sign = "+" if re.search(r"\+|plus|[Aa]dd|sum", question(task)) else "-"
        return (sign, *re.findall(r"\d\d", question(task)))

    rng = Random(0)
    trained = {numbers(arithmetic(rng)) for _ in range(4000)}
    assert not trained & {numbers(arithmetic(rng, held_out=True)) for _ in range(300)}


def test_every_fact_and_word_is_trained_but_for_one_phrasing():
    assert len(facts()) >= 320
    assert len({language for _, language, _ in dictionary()}) >= 10
    assert all(len(phrasings) >= 5 for *_, phrasings in facts())
    assert len({(relation, subject) for relation, subject, *_ in facts()}) == len(facts())


def test_the_dictionary_is_written_in_at_least_five_scripts():
    ranges = {"Latin": "a-z", "Cyrillic": "Ѐ-ӿ", "Greek": "Ͱ-Ͽ", "Arabic": "؀-ۿ", "Devanagari": "ऀ-ॿ",
              "Kana": "぀-ヿ", "Hangul": "가-힯", "Han": "一-鿿"}  # fmt: skip
    text = " ".join(other for _, _, other in dictionary())
    assert all(re.search(f"[{span}]", text) for span in ranges.values())


@pytest.mark.parametrize(("a", "b"), [(57, 45), (12, 13), (99, 99), (52, 27), (80, 79), (27, 52), (44, 44)])
def test_the_columns_lead_to_the_answer(a, b):
    tens, ones = (line.rpartition("= ")[2] for line in reversed(add_columns(a, b).splitlines()[-2:]))
    assert int(tens) * 10 + int(ones) % 10 == a + b
    tens, ones = (line.rpartition("= ")[2] for line in reversed(subtract_columns(a, b).splitlines()[-2:]))
    assert int(tens) * 10 + int(ones) == abs(a - b)


def test_tools_have_typed_schemas_and_every_call_fits_its_own():
    assert len(TOOLS) >= 5
    kinds = {"string": str, "number": (int, float), "integer": int}
    rng = Random(3)
    for name, case in CASES.items():
        schema = TOOLS[name]["function"]["parameters"]
        for _ in range(20):
            _, arguments, *_ = case(rng)
            assert list(arguments) == schema["required"]
            assert all(isinstance(v, kinds[schema["properties"][k]["type"]]) for k, v in arguments.items())


def test_json_answers_are_json_of_the_sentence():
    rng = Random(4)
    for _ in range(50):
        task = extract_json(rng)
        values = json.loads(task.reply[0].text)
        assert all(str(value) in question(task) for value in values.values())


def test_recall_and_needle_answers_stand_in_the_conversation():
    rng = Random(5)
    for _ in range(50):
        task = needle(rng)
        assert task.reply[0].text in question(task)
        task = recall(rng)
        assert all(message.role in ("user", "assistant") for message in task.messages)


def test_the_held_out_set_covers_every_family_in_both_modes():
    tasks = held_out(8)
    seen = {(task.family, task.thinking) for task in tasks}
    families = ("arithmetic", "fact", "translation", "recall", "json", "smalltalk", "tool", "needle")
    assert seen == {(family, thinking) for family in families for thinking in (False, True)}
    assert held_out(8) == tasks


def test_without_thinking_no_thought_is_wanted():
    tasks = [task for task in held_out(3) if not task.thinking]
    assert not any(message.reasoning for task in tasks for message in task.reply)


def test_a_tool_task_becomes_a_call_and_an_answer():
    task = next(task for task in held_out(1) if task.family == "tool")
    call, answer = items_of(task)
    assert (call.family, answer.family) == ("tool_call", "tool_answer")
    assert [name for name, _ in call.calls] == [task.reply[0].tool_calls[0].name]
    assert not call.content
    assert answer.content == task.reply[-1].text
    assert not answer.calls
    assert [message.role for message in answer.messages[-2:]] == ["assistant", "tool"]
    assert isinstance(answer.messages[0], Message)
