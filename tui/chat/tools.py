"""The tools that the app itself offers to the model: they read, count and tell the time, and change nothing."""

import json
import operator
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo, available_timezones

from qwen35_local.events import ToolCall

Search = Callable[[str], list[str]]  # words -> lines of earlier chats
OPERATIONS = {"+": operator.add, "-": operator.sub, "*": operator.mul, "/": operator.truediv}


def _tool(name: str, description: str, **properties: tuple[str, str]) -> dict[str, Any]:
    parameters = {
        "type": "object",
        "properties": {key: {"type": kind, "description": text} for key, (kind, text) in properties.items()},
        "required": list(properties),
    }
    return {"type": "function", "function": {"name": name, "description": description, "parameters": parameters}}


# Names and schemas are ones that the miniature was trained on, so that it can use them too.
TOOLS = (
    _tool(
        "calculate",
        "Exact arithmetic on two numbers.",
        a=("number", "First number"),
        operation=("string", "One of + - * /"),
        b=("number", "Second number"),
    ),
    _tool("get_time", "Current local time of a city.", city=("string", "City name")),
    _tool("search_notes", "Search the notes of the user.", query=("string", "Words to find")),
)


def use(call: ToolCall, search: Search) -> str:
    """The result of a call, or a sentence that says why there is none; the model reads it either way."""
    try:
        match call.name:
            case "calculate":
                return calculate(call.arguments)
            case "get_time":
                return local_time(str(call.arguments.get("city", "")))
            case "search_notes":
                found = search(str(call.arguments.get("query", "")))
                return "\n".join(found) or "nothing found"
    except (ValueError, TypeError, ZeroDivisionError, OverflowError) as error:
        return f"error: {error}"
    return f"error: there is no tool {call.name!r}"


def calculate(arguments: Mapping[str, Any]) -> str:
    """`a operation b`; whole numbers stay whole."""
    a, sign, b = arguments.get("a"), arguments.get("operation"), arguments.get("b")
    if isinstance(a, bool) or isinstance(b, bool) or not isinstance(a, int | float) or not isinstance(b, int | float):
        raise ValueError("a and b must be numbers")
    if sign not in OPERATIONS:
        raise ValueError(f"operation must be one of + - * /, not {sign!r}")
    if sign == "/" and isinstance(a, int) and isinstance(b, int) and b and a % b == 0:
        return str(a // b)
    return json.dumps(OPERATIONS[sign](a, b))


def local_time(city: str) -> str:
    """ "HH:MM" in the zone that is named after the city."""
    wanted = city.strip().replace(" ", "_").lower()
    zone = next((name for name in sorted(available_timezones()) if name.rsplit("/", 1)[-1].lower() == wanted), None)
    if zone is None:
        raise ValueError(f"no time zone is named after {city!r}")
    return datetime.now(ZoneInfo(zone)).strftime("%H:%M")


def shown(arguments: Mapping[str, Any]) -> str:
    """Arguments as they are drawn in a tool block."""
    return ", ".join(f"{name}={json.dumps(value, ensure_ascii=False)}" for name, value in arguments.items())
