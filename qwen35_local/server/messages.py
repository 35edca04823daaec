"""Anthropic's messages request: a dict in, a `ChatRequest` out. Pure."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from ..engine import ChatRequest, Constraint, ImagePart, Message, Part, TextPart
from ..events import ToolCall
from .asked import EFFORT, MAX_STOPS, MAX_TOOLS, Asked, Served
from .fields import Fields
from .openai import TOOL_NAME, in_call_order
from .refusal import bad
from .schemas import check_schema


def parse_messages(value: Mapping[str, Any], served: Served) -> Asked:
    """A request to answer. Raises Refused with the field's name in its message."""
    return _parse(value, served, counting=False)


def parse_count(value: Mapping[str, Any], served: Served) -> Asked:
    """A request to count the tokens of a prompt."""
    return _parse(value, served, counting=True)


def _parse(value: Mapping[str, Any], served: Served, counting: bool) -> Asked:
    body = Fields(value)
    model = served.check_model(body.text("model"))
    messages, prefill = _conversation(body, served)
    tools = _tools(body)
    limit = body.whole("max_tokens", 1)
    if limit is None and not counting:
        raise body.refuse("max_tokens", "is missing")
    shape, effort = _output(body, bool(tools))
    thinking, budget = _thinking(body, effort)
    tools, constraint, parallel = _choice(body, tools, shape)
    sampling = {
        "temperature": body.number("temperature", 0, 2),
        "top_p": 1e-9 if (top_p := body.number("top_p", 0, 1)) == 0 else top_p,
        "top_k": body.whole("top_k", 0, 2**31 - 1),
    }
    request = ChatRequest.of(
        messages,
        tools=tuple(tools),
        thinking=thinking,
        thinking_budget=budget,
        preserve_thinking=served.preserve_thinking,
        **sampling,
        max_tokens=limit,
        stop=body.strings("stop_sequences", MAX_STOPS),
        parallel_tool_calls=parallel,
        prefill=prefill,
        constraint=constraint,
    )
    stream = body.flag("stream")
    body.only("service_tier", ["auto", "standard_only"], "there is one tier")
    for name in ("container", "mcp_servers"):
        body.never(name, "tools run at the client")
    _context_management(body)
    body.ignore("metadata", "cache_control")
    body.end()
    return Asked(request, model, stream)


def _conversation(body: Fields, served: Served) -> tuple[list[Message], str]:
    items = body.objects("messages")
    if not items:
        raise body.refuse("messages", "is missing or empty: give at least one user message")
    system = _blocks_text(body, "system")
    turns: list[Message] = []
    for item in items:
        match item.choice("role", ("user", "assistant", "system")):
            case "user":
                turns += _user(item, served)
            case "assistant":
                turns.append(_assistant(item))
            case "system":
                system = "\n\n".join(filter(None, (system, _blocks_text(item, "content"))))
            case None:
                raise item.refuse("role", "is missing")
        item.end()
    prefill = ""
    if len(turns) > 1 and (last := turns[-1]).role == "assistant" and not last.tool_calls:
        prefill = turns.pop().text
    return [*([Message("system", system)] if system else []), *in_call_order(turns)], prefill


def _blocks_text(item: Fields, name: str) -> str:
    content = item.any(name)
    if content is None or isinstance(content, str):
        return content or ""
    texts = []
    for block in item.objects(name):
        if block.needed_text("type") != "text":
            raise block.refuse("type", "must be text here")
        texts.append(block.needed_text("text"))
        block.ignore("cache_control", "citations")
        block.end()
    return "\n\n".join(texts)


def _user(item: Fields, served: Served) -> Iterator[Message]:
    """Tool results first, each a turn of its own, then what the person says."""
    content = item.any("content")
    if content is None or isinstance(content, str):
        yield Message("user", content or "")
        return
    parts: list[Part] = []
    for block in item.objects("content"):
        kind = block.needed_text("type")
        block.ignore("cache_control", "citations")
        if kind == "tool_result":
            if parts:
                raise block.refuse("type", "tool results come before other content")
            yield _result(block, served)
        else:
            parts.append(_part(block, kind, served))
        block.end()
    if parts:
        yield Message("user", tuple(parts))


def _result(block: Fields, served: Served) -> Message:
    content = block.any("content")
    if content is None or isinstance(content, str):
        parts: list[Part] = [TextPart(content or "")]
    else:
        inner = block.objects("content")
        parts = [_part(part, part.needed_text("type"), served) for part in inner]
        for part in inner:
            part.ignore("cache_control", "citations")
            part.end()
    if block.flag("is_error"):  # the model's format has no field for it
        parts.insert(0, TextPart("Error: "))
    texts = [part for part in parts if isinstance(part, TextPart)]
    whole = "".join(part.text for part in texts) if len(texts) == len(parts) else tuple(parts)
    return Message("tool", whole, tool_call_id=block.needed_text("tool_use_id"))


def _part(block: Fields, kind: str, served: Served) -> Part:
    if kind == "text":
        return TextPart(block.needed_text("text"))
    source = block.object("source")
    if kind not in ("image", "document") or source is None:
        raise block.refuse("type", f"{kind[:40]!r} is not understood: use text or image")
    match source.needed_text("type"), kind:
        case "base64", "image":
            head = f"data:{source.needed_text('media_type')};base64,"
            made: Part = ImagePart(served.fetch(head + source.needed_text("data")))
        case "url", "image":
            made = ImagePart(served.fetch(source.needed_text("url")))
        case "text", "document":
            source.ignore("media_type")
            block.ignore("title", "context")
            made = TextPart(source.needed_text("data"))
        case other, _:
            raise source.refuse("type", f"{other[:40]!r} is not understood for {kind}")
    source.end()
    return made


def _assistant(item: Fields) -> Message:
    content = item.any("content")
    if content is None or isinstance(content, str):
        return Message("assistant", content or "")
    texts, thoughts, calls = [], [], []
    for block in item.objects("content"):
        match block.needed_text("type"):
            case "text":
                texts.append(block.needed_text("text"))
            case "thinking":
                thoughts.append(block.needed_text("thinking"))
                block.ignore("signature")  # ours are empty
            case "redacted_thinking":
                block.ignore("data")  # another model's, which nobody here can read
            case "tool_use":
                name, call = block.needed_text("name"), block.needed_text("id")
                calls.append(ToolCall(name, block.mapping("input") or {}, call))
            case kind:
                raise block.refuse("type", f"{kind[:40]!r} is not understood in an assistant message")
        block.ignore("cache_control", "citations", "caller")
        block.end()
    return Message("assistant", "".join(texts), "\n".join(thoughts) if thoughts else None, tuple(calls))


def _tools(body: Fields) -> list[Mapping[str, Any]]:
    tools: dict[str, Mapping[str, Any]] = {}
    for tool in body.objects("tools", MAX_TOOLS):
        tool.only("type", ["custom"], "this server has no tools of its own")
        name = tool.needed_text("name")
        if not TOOL_NAME.fullmatch(name) or name in tools:
            raise tool.refuse(
                "name", f"{name[:80]!r} must be 1 to 128 letters, digits, '_' or '-', and not be used twice"
            )
        schema = tool.mapping("input_schema")
        if schema is None:
            raise tool.refuse("input_schema", "is missing")
        check_schema(schema, tool.param("input_schema"))
        function: dict[str, Any] = {"name": name}
        if (description := tool.text("description")) is not None:
            function["description"] = description
        function["parameters"] = schema
        if tool.flag("strict"):
            function["strict"] = True
        tool.ignore("cache_control", "eager_input_streaming", "defer_loading", "input_examples")
        tool.end()
        tools[name] = {"type": "function", "function": function}
    return list(tools.values())


def _choice(
    body: Fields, tools: list[Mapping[str, Any]], shape: Constraint | None
) -> tuple[list[Mapping[str, Any]], Constraint | None, bool]:
    choice = body.object("tool_choice") or Fields({"type": "auto"}, "tool_choice")
    kind = choice.choice("type", ("auto", "any", "tool", "none"))
    parallel = not choice.flag("disable_parallel_tool_use")
    names = tuple(tool["function"]["name"] for tool in tools)
    if kind == "tool":
        name = choice.needed_text("name")
        if name not in names:
            raise bad(f"tool_choice names {name[:64]!r}, which is not among the tools", "tool_choice")
        names = (name,)
    choice.end()
    if kind in ("any", "tool"):
        if not tools:
            raise bad("tool_choice asks for a call, but there are no tools", "tool_choice")
        return tools, Constraint(calls=names, must_call=True), parallel
    if kind == "none":
        return [], shape, parallel
    strict = tuple(tool["function"]["name"] for tool in tools if tool["function"].get("strict"))
    return tools, shape or (Constraint(calls=strict) if strict else None), parallel


def _output(body: Fields, tools: bool) -> tuple[Constraint | None, str | None]:
    output = body.object("output_config") or Fields({}, "output_config")
    effort = output.choice("effort", (*EFFORT, "max"))
    shape = None
    for holder, name in ((output, "format"), (body, "output_format")):
        if (wanted := holder.object(name)) is not None:
            wanted.only("type", ["json_schema"], "json_schema is the one format")
            schema = wanted.mapping("schema")
            if schema is None:
                raise wanted.refuse("schema", "is missing")
            check_schema(schema, wanted.param("schema"))
            wanted.end()
            shape = Constraint("json", json.dumps(schema), may_call=tools)
    output.end()
    return shape, effort


def _thinking(body: Fields, effort: str | None) -> tuple[bool, int | None]:
    """Anthropic's thinking is off unless asked for."""
    wanted = body.object("thinking") or Fields({"type": "disabled"}, "thinking")
    kind = wanted.choice("type", ("enabled", "adaptive", "disabled"))
    budget = wanted.whole("budget_tokens", 1)
    wanted.ignore("display")
    wanted.end()
    if kind == "disabled" or effort == "none":
        return False, None
    return True, EFFORT.get(effort) if budget is None and effort else budget


def _context_management(body: Fields) -> None:
    """Clearing old thinking is what the model's format does anyway; other edits are not done here."""
    edits = (body.object("context_management") or Fields({})).objects("edits")
    for edit in edits:
        if not edit.needed_text("type").startswith("clear_thinking"):
            raise bad("context_management: edits are made by the client here", "context_management")
