"""Tool calls as the model writes them -> `ToolCall` values. (The other direction is part of the template.)

Between its tags a call reads

    <function=NAME>
    <parameter=KEY>
    VALUE
    </parameter>
    </function>

Nothing in it is escaped and every value is text, so two questions need rules. Where does a value end: at the
`</parameter>` that closes as many as were opened inside the value and is followed by the next part of the call. What is
its type: what the tool's JSON schema says, never what the value looks like.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ..events import ToolCall
from .values import json_or_none, mapping, typed

_FUNCTION = re.compile(r"\s*<function=([^>\n]+)>")
_PARAMETER = re.compile(r"\s*<parameter=([^>\n]+)>")
_PARAMETER_TAG = re.compile(r"<parameter=[^>\n]+>|</parameter>")
_FUNCTION_END = re.compile(r"\s*</function>\s*")
_AFTER_VALUE = re.compile(r"\s*(?:<parameter=[^>\n]+>|</function>\s*(?:\Z|<function=)|\Z)")

Schemas = Mapping[str, Mapping[str, Any]]


def schemas_of(tools: Iterable[Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """Tool name -> JSON schema of its parameters; the first of two tools with one name counts."""
    schemas: dict[str, Mapping[str, Any]] = {}
    for tool in tools:
        function = tool.get("function", tool)
        if isinstance(function, Mapping) and isinstance(name := function.get("name"), str):
            schemas.setdefault(name, mapping(function.get("parameters")))
    return schemas


def parse_calls(body: str, schemas: Schemas, whole: bool = True) -> list[ToolCall]:
    """The calls between `<tool_call>` and `</tool_call>`, without ids; empty if `body` is not one or more calls.

    `whole` demands `</function>`; without it closing tags may be missing at the end.
    """
    if _FUNCTION.match(body):
        return _parse_functions(body, schemas, whole, True) or _parse_functions(body, schemas, whole, False)
    return _parse_json(body, schemas)


def _parse_functions(body: str, schemas: Schemas, whole: bool, balanced: bool) -> list[ToolCall]:
    calls: list[ToolCall] = []
    position = 0
    while head := _FUNCTION.match(body, position):
        name = head[1].strip()
        schema = schemas.get(name, {})
        arguments: dict[str, Any] = {}
        position = head.end()
        while parameter := _PARAMETER.match(body, position):
            if (end := _value_end(body, parameter.end(), balanced)) is None:
                # Without a closing tag the value is all that follows, but not beyond a closing tag in the wrong place.
                if whole or balanced or "</parameter>" in body[parameter.end() :]:
                    return []
                end = (len(body.rstrip().removesuffix("</function>").rstrip()), len(body))
            value = body[parameter.end() : end[0]].removeprefix("\n").removesuffix("\n")
            position = end[1]
            if (key := parameter[1].strip()) not in arguments:
                arguments[key] = typed(value, _property(schema, key), schema)
        if tail := _FUNCTION_END.match(body, position):
            position = tail.end()
        elif whole or body[position:].strip():
            return []
        calls.append(ToolCall(name, arguments))
    return [] if body[position:].strip() else calls


def _value_end(body: str, start: int, balanced: bool) -> tuple[int, int] | None:
    """Where a value that begins at `start` ends, and where its closing tag ends."""
    depth = 0
    for tag in _PARAMETER_TAG.finditer(body, start):
        if not tag[0].startswith("</"):
            depth += balanced
        elif depth:
            depth -= 1
        elif _AFTER_VALUE.match(body, tag.end()):
            return tag.start(), tag.end()
    return None


def _parse_json(body: str, schemas: Schemas) -> list[ToolCall]:
    """`{"name": …, "arguments": {…}}`, which relatives of this model write; only for a declared tool."""
    value = json_or_none(body)
    if isinstance(value, Mapping) and value.get("name") in schemas and isinstance(value.get("arguments"), Mapping):
        return [ToolCall(value["name"], value["arguments"])]
    return []


def new_ids(used: Iterable[str]) -> Iterator[str]:
    """call_1, call_2, …: the same in every run, and none that the conversation holds already."""
    taken = set(used)
    number = len(taken)
    while True:
        number += 1
        if (name := f"call_{number}") not in taken:
            yield name


def _property(schema: Mapping[str, Any], key: str) -> Any:
    declared = mapping(schema.get("properties"))
    return declared[key] if key in declared else schema.get("additionalProperties")
