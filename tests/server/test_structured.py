"""Answers held to a grammar: on a model of noise, which would never meet one by chance, and on the miniature."""

import json
import re
from typing import Any

import numpy as np
import pytest
from server_cases import HI, TOOL

from qwen35_local.backends.scripted import ScriptedEngine, ScriptedSession
from qwen35_local.chat.tokenizer import Tokenizer
from qwen35_local.engine import Constraint, gather
from qwen35_local.errors import UsageError

SCHEMA = {
    "type": "object",
    "properties": {"name": {"enum": ["Ann", "Bob"]}, "age": {"type": "integer", "minimum": 0, "maximum": 9}},
    "required": ["name", "age"],
    "additionalProperties": False,
}
TOOLS: Any = [
    {
        "type": "function",
        "function": {
            "name": "book",
            "parameters": {
                "type": "object",
                "properties": {
                    "seats": {"type": "integer", "minimum": 1, "maximum": 4},
                    "row": {"enum": ["front", "back"]},
                    "window": {"type": "boolean"},
                },
                "required": ["seats", "row"],
            },
        },
    },
    TOOL,
]


class NoiseSession(ScriptedSession):
    """Logits of noise, but a model that thinks knows when to stop."""

    close_thinking = 0

    def logits(self) -> Any:
        random = np.random.default_rng(len(self.ids))
        logits = random.normal(size=self._vocab_size).astype(np.float32)
        logits[self._end] += 2
        if len(self.ids) % 7 == 0:
            logits[self.close_thinking] = 50
        return logits


class NoiseEngine(ScriptedEngine):
    def open_session(self) -> NoiseSession:
        session = NoiseSession(self._tokenizer, self.info.vocab_size, self._chunk, self._delay)
        session.close_thinking = self._tokenizer.special["</think>"]
        return session


@pytest.mark.parametrize("thinking", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_noise_becomes_json(tokenizer: Tokenizer, thinking: bool, seed: int):
    constraint = Constraint("json", json.dumps(SCHEMA))
    answer = gather(NoiseEngine(tokenizer).chat("Hi", constraint=constraint, thinking=thinking, seed=seed, top_k=0))
    value = json.loads(answer.text)
    assert value["name"] in ("Ann", "Bob")
    assert 0 <= value["age"] <= 9
    assert bool(answer.reasoning) is thinking
    assert answer.done.finish_reason == "stop"


@pytest.mark.parametrize("parallel", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_noise_becomes_the_named_call(tokenizer: Tokenizer, parallel: bool, seed: int):
    constraint = Constraint(calls=("book",), must_call=True)
    options: Any = {"tools": TOOLS, "parallel_tool_calls": parallel, "seed": seed, "max_tokens": 400}
    answer = gather(NoiseEngine(tokenizer).chat("Hi", constraint=constraint, **options))
    assert answer.done.finish_reason == "tool_calls"
    assert parallel or len(answer.tool_calls) == 1
    for call in answer.tool_calls:
        assert call.name == "book"
        assert call.arguments["seats"] in range(1, 5)
        assert call.arguments["row"] in ("front", "back")
        assert isinstance(call.arguments.get("window", True), bool)


def test_noise_becomes_a_match(tokenizer: Tokenizer):
    rule = Constraint("regex", "[a-f]{3}/[0-9]+x")
    assert re.fullmatch("[a-f]{3}/[0-9]+x", NoiseEngine(tokenizer).complete("Hi", constraint=rule).text)
    rule = Constraint("lark", 'start: "go " ("left" | "right")')
    assert NoiseEngine(tokenizer).complete("Hi", constraint=rule).text in ("go left", "go right")


@pytest.mark.parametrize(
    ("constraint", "param"),
    [
        (Constraint("json", '{"type": "integer", "minimum": 5, "maximum": 3}'), "response_format"),
        (Constraint("json", '{"type": "nonsense"}'), "response_format"),
        (Constraint("regex", "("), "response_format"),
        (Constraint("lark", "start"), "response_format"),
    ],
)
def test_what_nothing_can_meet_is_refused_at_once(tokenizer: Tokenizer, constraint: Constraint, param: str):
    with pytest.raises(UsageError) as refused:
        ScriptedEngine(tokenizer).chat("Hi", constraint=constraint)
    assert refused.value.param == param


def test_recursive_schemas_and_large_enums(tokenizer: Tokenizer):
    tree = {
        "$defs": {"node": {"type": "object", "properties": {"next": {"$ref": "#/$defs/node"}}, "required": []}},
        "$ref": "#/$defs/node",
    }
    large = {"enum": [f"value {number}" for number in range(10_000)]}
    for schema in (tree, large):
        ScriptedEngine(tokenizer).chat("Hi", constraint=Constraint("json", json.dumps(schema)))


def test_a_budget_ends_thinking(tokenizer: Tokenizer):
    engine = ScriptedEngine(tokenizer, ["hm " * 50 + "</think>\n\nyes"])
    events = engine.chat("Hi", thinking_budget=10, max_tokens=200)
    answer = gather(events)
    assert answer.reasoning.endswith("I have to give the solution based on the thinking directly now.")
    assert answer.done.usage.reasoning_tokens < 120


def test_one_call_when_parallel_calls_are_not_welcome(tokenizer: Tokenizer):
    call = "<tool_call>\n<function=f>\n<parameter=n>\n3\n</parameter>\n</function>\n</tool_call>"
    engine = ScriptedEngine(tokenizer, [call + "\n" + call])
    answer = engine.complete("Hi", thinking=False, tools=[TOOL], parallel_tool_calls=False)
    assert (len(answer.tool_calls), answer.done.finish_reason) == (1, "tool_calls")


# Through HTTP, on the miniature.


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("effort", ["none", "low"])
def test_json_schema(miniature, stream, effort):
    answer = miniature.openai().chat.completions.create(
        model="miniature",
        messages=[{"role": "user", "content": "Ann is 7 years old. Write JSON with the keys name and age."}],
        response_format={"type": "json_schema", "json_schema": {"name": "person", "schema": SCHEMA, "strict": True}},
        reasoning_effort=effort,
        extra_body={"thinking_budget": 40} if effort == "low" else {},
        max_tokens=300,
        seed=1,
        stream=stream,
    )
    text = (
        "".join(part.choices[0].delta.content or "" for part in answer) if stream else answer.choices[0].message.content
    )
    value = json.loads(text)
    assert value["name"] in ("Ann", "Bob")
    assert 0 <= value["age"] <= 9


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "book"}}])
def test_tool_choice(miniature, choice):
    answer = miniature.openai().chat.completions.create(
        model="miniature",
        messages=HI,
        tools=TOOLS[:1],
        tool_choice=choice,
        parallel_tool_calls=False,
        reasoning_effort="none",
        seed=2,
    )
    (call,) = answer.choices[0].message.tool_calls
    assert json.loads(call.function.arguments)["row"] in ("front", "back")
    assert answer.choices[0].finish_reason == "tool_calls"


def test_the_same_seed_says_the_same_alone_or_in_company(miniature):
    from concurrent.futures import ThreadPoolExecutor

    def ask(seed: int) -> str:
        return miniature.chat(seed=seed, temperature=1.0, max_tokens=24).json()["choices"][0]["message"]

    alone = [ask(seed) for seed in range(3)]
    with ThreadPoolExecutor(3) as pool:
        assert list(pool.map(ask, range(3))) == alone


def test_a_turn_reuses_the_last_one(miniature):
    messages = [{"role": "user", "content": "What is 17 + 25?"}]
    first = miniature.chat(messages=messages, max_tokens=60).json()
    message = first["choices"][0]["message"]
    messages += [{**message, "content": message["content"] or "42"}, {"role": "user", "content": "And 3 + 4?"}]
    usage = miniature.chat(messages=messages, max_tokens=5).json()["usage"]
    assert usage["prompt_tokens_details"]["cached_tokens"] > 0
