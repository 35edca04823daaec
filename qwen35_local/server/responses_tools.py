"""Tools of OpenAI's responses: functions, functions in namespaces, custom tools that take free text. Pure.

The model knows one flat list of functions. A function of a namespace is `namespace__name` to it; a custom tool is a
function with one argument, its input.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..engine import Constraint
from ..events import ToolCall
from .fields import Fields
from .openai import arguments_of, tools_of

INPUT: Mapping[str, Any] = {
    "type": "object",
    "properties": {"input": {"type": "string"}},
    "required": ["input"],
    "additionalProperties": False,
}


@dataclass(frozen=True)
class Named:
    """What the client calls a tool that the model knows by another name, or as a function."""

    name: str
    namespace: str | None = None
    custom: bool = False

    @property
    def flat(self) -> str:
        return self.name if self.namespace is None else f"{self.namespace}__{self.name}"


@dataclass(frozen=True)
class Toolbox:
    """The tools as chat completions has them, what must be called, and the client's names by the model's."""

    tools: tuple[Mapping[str, Any], ...] = ()
    constraint: Constraint | None = None
    parallel: bool = True
    names: Mapping[str, Named] = field(default_factory=dict)


def toolbox_of(body: Fields) -> Toolbox:
    """`tools`, `tool_choice` and `parallel_tool_calls`, read by the rules of chat completions."""
    declared = list(_declared(body.objects("tools")))
    choice = body.any("tool_choice")
    if isinstance(choice, Mapping) and choice.get("type") in ("function", "custom"):
        named = Fields(choice, "tool_choice")
        kind = named.needed_text("type")
        wanted = Named(named.needed_text("name"), named.text("namespace"), kind == "custom")
        named.end()
        choice = {"type": "function", "function": {"name": wanted.flat}}
    functions = [function for _, function in declared]
    parallel = body.flag("parallel_tool_calls", True)
    tools, constraint, parallel = tools_of(
        Fields({"tools": functions, "tool_choice": choice, "parallel_tool_calls": parallel})
    )
    return Toolbox(tools, constraint, parallel, {named.flat: named for named, _ in declared})


def _declared(
    items: Sequence[Fields], namespace: str | None = None, about: str | None = None
) -> Iterator[tuple[Named, Mapping[str, Any]]]:
    """Each tool with its declaration; the functions of a namespace begin with what is said of it."""
    for item in items:
        match item.needed_text("type"):
            case "function":
                given = {name: item.any(name) for name in ("description", "parameters", "strict")}
                named = Named(item.needed_text("name"), namespace)
            case "custom":
                _free_text(item)
                given = {"description": item.text("description"), "parameters": INPUT}
                named = Named(item.needed_text("name"), namespace, custom=True)
            case "namespace" if namespace is None:
                yield from _declared(item.objects("tools"), item.needed_text("name"), item.text("description"))
                item.end()
                continue
            case kind:
                raise item.refuse("type", f"{kind[:40]!r} is not supported: only tools of the client can be called")
        item.only("defer_loading", [False], "every tool is shown to the model at once")
        item.only("allowed_callers", [["direct"]], "tools are called by the model alone")
        item.end()
        if about:
            given["description"] = "\n".join(filter(None, (about, given["description"])))
        function = {"name": named.flat, **{key: value for key, value in given.items() if value is not None}}
        yield named, {"type": "function", "function": function}


def _free_text(item: Fields) -> None:
    shape = item.object("format") or Fields({}, "format")
    shape.only("type", ["text"], "a custom tool takes free text: use a function with a schema")
    shape.end()


def call_of(item: Fields) -> ToolCall:
    """A call that a client sends back: an item `function_call` or `custom_tool_call`."""
    custom = item.text("type") == "custom_tool_call"
    named = Named(item.needed_text("name"), item.text("namespace"), custom)
    if custom:
        arguments: Mapping[str, Any] = {"input": item.text("input") or ""}
    else:
        arguments = arguments_of(item, item.needed_text("arguments"))
    return ToolCall(named.flat, arguments, item.needed_text("call_id"))
