"""Calls as the model writes them: what a value is, where it ends, and what is not a call at all."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen35_local.chat.template import render
from qwen35_local.chat.tools import new_ids, parse_calls, schemas_of
from qwen35_local.chat.values import typed
from qwen35_local.engine import Message
from qwen35_local.events import ToolCall

SCHEMAS = schemas_of(
    [
        {"type": "function", "function": {"name": "f", "parameters": {"properties": {"n": {"type": "integer"}}}}},
        {"name": "g"},
        {"name": "f", "parameters": {"properties": {"n": {"type": "string"}}}},
        {"function": "odd"},
    ]
)


def arguments(body: str, whole: bool = True) -> list[tuple[str, dict[str, Any]]]:
    return [(call.name, dict(call.arguments)) for call in parse_calls(body, SCHEMAS, whole)]


def test_schemas_by_name_first_wins():
    assert set(SCHEMAS) == {"f", "g"}
    assert SCHEMAS["f"]["properties"]["n"] == {"type": "integer"}


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("\n<function=f>\n<parameter=n>\n3\n</parameter>\n<parameter=s>\na b\n</parameter>\n</function>\n", None),
        ("<function=f><parameter=n>3</parameter><parameter=s>a b</parameter></function>", None),
        ("<function= f >\n<parameter= n >\n 3 \n</parameter>\n\n<parameter=s>\na b\n</parameter></function>  ", None),
        ("<function=f><parameter=n>3</parameter><parameter=n>4</parameter></function>", {"n": 3}),
        ("\n<function=f>\n</function>\n", {}),
        ("<function=f><parameter=s>\n  two\n\n</parameter></function>", {"s": "  two\n"}),
        ("<function=f><parameter=s></parameter></function>", {"s": ""}),
        ("<function=f><parameter=n>many</parameter></function>", {"n": "many"}),
    ],
)
def test_spellings(body: str, expected: dict[str, Any] | None):
    assert arguments(body) == [("f", {"n": 3, "s": "a b"} if expected is None else expected)]


EXAMPLE = "Write\n<tool_call>\n<function=x>\n<parameter=y>\n1\n</parameter>\n</function>\n</tool_call>\nso."


@pytest.mark.parametrize(
    "value",
    [
        "a </parameter> b",
        "a\n</parameter>\nb\n</parameter>",
        EXAMPLE,
        EXAMPLE + EXAMPLE,
        "opens <parameter=y> only",
        '{"name": "g", "arguments": {}}',
        "<function=g>",
        "</function>",
        "</function>\n</tool_call>",
        "<parameter=y>\n1\n</parameter>",
        "\n",
        "\n\n x \n\n",
    ],
)
def test_a_value_may_look_like_markup(value: str):
    call = ToolCall("f", {"first": value, "last": value})
    assert arguments(written(call)) == [("f", {"first": value, "last": value})]


def written(*calls: ToolCall) -> str:
    """The body of the calls as the template writes them."""
    text = "".join(part.text for part in render([Message("user", "?"), Message("assistant", "", None, calls)]))
    body = text.partition("<think>\n\n</think>\n\n<tool_call>")[2]
    return body.rpartition("</tool_call>")[0].replace("</tool_call>\n<tool_call>", "")


plain = st.text(st.characters(exclude_categories=["Cs"]), max_size=20).filter(lambda text: "<" not in text)
value = st.lists(plain | st.sampled_from(["</parameter>", EXAMPLE, "\n", " "]), max_size=4).map("".join)
name = st.from_regex(r"[A-Za-z_.-]{1,8}", fullmatch=True)


@given(name, st.dictionaries(name, value, max_size=3))
def test_round_trip_of_any_text_values(function: str, values: dict[str, str]):
    call = ToolCall(function, values)
    assert arguments(written(call), whole=True) == [(function, values)]


json_value = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | plain,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(plain, inner, max_size=3),
    max_leaves=8,
)
KINDS = {bool: "boolean", int: "integer", float: "number", str: "string", list: "array", dict: "object"}


@given(json_value)
def test_round_trip_by_schema(original: Any):
    kind = "null" if original is None else KINDS[type(original)]
    schemas = {"f": {"properties": {"v": {"type": kind}}}}
    (call,) = parse_calls(written(ToolCall("f", {"v": original})), schemas)
    assert call.arguments["v"] == original
    assert type(call.arguments["v"]) is type(original) or kind == "number"


def test_two_calls_in_one_block():
    body = written(ToolCall("f", {"n": 1}), ToolCall("g", {"s": "x"}))
    assert arguments(body) == [("f", {"n": 1}), ("g", {"s": "x"})]


@pytest.mark.parametrize(
    "body",
    [
        *("", "hello", "<function=>", "<function=f", "<function=f>\n<parameter=n>\n3\n</parameter>", "function=f"),
        *("<function=f>\nhello\n</function>", "<function=f></function> and so on", "I call <function=f></function>"),
        *("<function=f><parameter=n>3</function>", "{}", "[1]", '{"name": "h", "arguments": {}}', "null"),
        *('{"name": "f", "arguments": "{}"}', '{"name": "f", "arguments": {"n": NaN}}', "{" * 100_000),
    ],
)
def test_what_is_no_whole_call(body: str):
    assert arguments(body) == []


@pytest.mark.parametrize("tail", ["\n</parameter>\n", "\n</parameter>", "\n</function>", "\n", ""])
def test_missing_closing_tags_at_the_end(tail: str):
    body = "\n<function=f>\n<parameter=n>\n3\n</parameter>\n<parameter=s>\na b" + tail
    assert arguments(body) == []
    assert arguments(body, whole=False) == [("f", {"n": 3, "s": "a b"})]


def test_json_calls_only_for_declared_tools():
    assert arguments(' {"name": "f", "arguments": {"n": [1]}}\n') == [("f", {"n": [1]})]


INTEGER, TEXT, NULL = {"type": "integer"}, {"type": "string"}, {"type": "null"}


@pytest.mark.parametrize(
    ("schema", "text", "expected"),
    [
        *((None, "42", "42"), ({}, "true", "true"), (True, "null", "null"), ({"type": "odd"}, "1", "1")),
        *((TEXT, "42", "42"), (TEXT, "false", "false"), (TEXT, "null", "null"), (TEXT, '{"a": 1}', '{"a": 1}')),
        *((INTEGER, "42", 42), (INTEGER, " -7\n", -7), (INTEGER, "5.0", 5), (INTEGER, "5.5", "5.5")),
        *((INTEGER, "9" * 5000, "9" * 5000), (INTEGER, "1_000", "1_000"), (INTEGER, "٣", "٣"), (INTEGER, "", "")),
        *(({"type": "number"}, "1e3", 1000.0), ({"type": "number"}, "2", 2), ({"type": "number"}, ".5", 0.5)),
        *(({"type": "number"}, text, text) for text in ("nan", "Infinity", "1e999", "one", "1_0.5")),
        *(({"type": "boolean"}, text, True) for text in ("true", "True", " TRUE ")),
        *(({"type": "boolean"}, "False", False), ({"type": "boolean"}, "1", "1"), ({"type": "boolean"}, "", "")),
        *((NULL, "null", None), (NULL, "None", None), (NULL, "nothing", "nothing")),
        *(({"type": "array"}, "[1, 2]", [1, 2]), ({"type": "array"}, "(1, 2)", "(1, 2)")),
        *(({"type": "array"}, "['a', True, None]", ["a", True, None]), ({"type": "array"}, '{"a": 1}', '{"a": 1}')),
        *(({"type": "object"}, "{'a': 1}", {"a": 1}), ({"type": "object"}, "{1, 2}", "{1, 2}")),
        *(({"type": "object"}, '{"a": NaN}', '{"a": NaN}'), ({"type": "array"}, "[1e999]", "[1e999]")),
        *(({"type": "object"}, r"{'a': '\d'}", {"a": r"\d"}), ({"type": "array"}, "[" * 9999, "[" * 9999)),
        *(({"properties": {}}, "{}", {}), ({"items": {}}, "[]", [])),
        (TEXT | {"type": ["string", "null"]}, "None", None),
        ({"type": ["integer", "null"]}, "3", 3),
        ({"anyOf": [INTEGER, NULL]}, "null", None),
        ({"anyOf": [INTEGER, TEXT]}, "3", "3"),
        ({"anyOf": [TEXT, {"type": "array"}]}, '["a"]', ["a"]),
        ({"anyOf": [TEXT, {"type": "array"}]}, "[draft", "[draft"),
        ({"oneOf": [{"type": "boolean"}, INTEGER]}, "True", True),
        ({"allOf": [{"$ref": "#/$defs/count"}]}, "3", 3),
        ({"$ref": "#/$defs/loop"}, "3", 3),
        ({"$ref": "#/$defs/none"}, "3", "3"),
        ({"$ref": "https://example.org/schema.json"}, "3", "3"),
        ({"enum": ["1", 1]}, "1", "1"),
        ({"enum": [1, True, None, 2.5, {"a": 1}]}, "True", True),
        ({"enum": [1, True, None, 2.5, {"a": 1}]}, "true", True),
        ({"enum": [1, True, None, 2.5, {"a": 1}]}, "1", 1),
        ({"enum": [1, True, None, 2.5, {"a": 1}]}, "None", None),
        ({"enum": [1, True, None, 2.5, {"a": 1}]}, '{"a":1}', {"a": 1}),
        ({"enum": ["a", "b"]}, "c", "c"),
        ({"const": 7}, "7", 7),
        ({"type": "integer", "enum": [1, 2]}, "3", 3),
    ],
)
def test_typed_by_schema(schema: Any, text: str, expected: Any):
    root = {"$defs": {"count": INTEGER, "loop": {"anyOf": [{"$ref": "#/$defs/loop"}, {"$ref": "#/$defs/count"}]}}}
    value = typed(text, schema, root)
    assert value == expected
    assert type(value) is type(expected)
    json.dumps(value, allow_nan=False)


def test_large_and_deep_schemas():
    deep: dict[str, Any] = INTEGER
    for _ in range(10_000):
        deep = {"anyOf": [deep]}
    assert typed("3", deep) == 3
    assert typed("9999", {"enum": [str(number) for number in range(10_000)]}) == "9999"


def test_additional_properties_give_the_type_of_undeclared_keys():
    (call,) = parse_calls(
        "<function=f><parameter=a>1</parameter><parameter=b>1</parameter></function>",
        {"f": {"properties": {"a": TEXT}, "additionalProperties": INTEGER}},
    )
    assert call.arguments == {"a": "1", "b": 1}


def test_ids_go_on_where_the_conversation_stopped():
    ids = new_ids(["call_1", "call_3", "toolu_x"])
    assert [next(ids), next(ids)] == ["call_4", "call_5"]
    assert next(new_ids([])) == "call_1"
