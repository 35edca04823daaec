"""OpenAI's chat completions request: a dict in, a `ChatRequest` out. Pure.

Every field is honoured, truthfully a no-op, or refused with its name; `README.md` has the table.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from ..engine import ChatRequest, Constraint, ImagePart, Message, Part, TextPart, VideoPart
from ..events import ToolCall
from .asked import EFFORT, MAX_STOPS, MAX_TOOLS, Asked, Served, max_tokens_of, sampling_of, thinking_of
from .fields import Fields
from .refusal import Refused, bad
from .schemas import check_schema
from .strict import loads

TOOL_NAME = re.compile(r"[a-zA-Z0-9_-]{1,128}")
LOW_DETAIL = 512 * 512  # pixels of an image whose detail is "low"


def parse_chat(value: Mapping[str, Any], served: Served) -> Asked:
    """A chat completions request. Raises Refused with `param`, or what `ChatRequest` raises."""
    body = Fields(value)
    model = served.check_model(body.text("model"))
    messages, prefill = conversation(body, served)
    tools, constraint, parallel = tools_of(body)
    logprobs = body.flag("logprobs")
    top = body.whole("top_logprobs", 0, 20)
    if top is not None and not logprobs:
        raise body.refuse("top_logprobs", "needs logprobs to be true")
    stream = body.flag("stream")
    options = body.object("stream_options")
    if options is not None and not stream:
        raise body.refuse("stream_options", "is for streams: set stream to true")
    options = options or Fields({}, "stream_options")
    usage = options.flag("include_usage")
    options.ignore("include_obfuscation")
    options.end()
    request = ChatRequest.of(
        messages,
        tools=tools,
        **thinking_of(body, body.choice("reasoning_effort", EFFORT), served),
        **sampling_of(body),
        max_tokens=max_tokens_of(body, "max_completion_tokens", "max_tokens"),
        stop=body.strings("stop", MAX_STOPS),
        top_logprobs=(top or 0) if logprobs else None,
        parallel_tool_calls=parallel,
        prefill=prefill,
        constraint=merged(constraint, format_of(body, tools)),
    )
    progress = body.flag("return_progress")
    refuse_the_rest(body)
    return Asked(request, model, stream, usage, progress, logprobs)


def refuse_the_rest(body: Fields) -> None:
    """The fields of the description that need nothing, or cannot be honoured here."""
    body.only("n", [1], "one answer at a time; ask again for another")
    body.only("service_tier", ["auto", "default"], "there is one tier")
    body.only("store", [False], "nothing is kept here")
    body.only("verbosity", ["medium"], "this model has no such setting")
    if (modalities := body.array("modalities")) and modalities != ["text"]:
        raise body.refuse("modalities", "must be ['text']: this model writes text only")
    body.never("audio", "this model writes text only")
    body.never("web_search_options", "this server does not reach the web")
    body.never("functions", "use tools")
    body.never("function_call", "use tool_choice")
    body.never("moderation", "there is no moderation here")
    body.ignore("user", "safety_identifier", "metadata", "prediction")
    body.ignore("prompt_cache_key", "prompt_cache_retention", "cache_prompt")  # prefixes are always reused
    body.end()


def conversation(body: Fields, served: Served) -> tuple[list[Message], str]:
    """The messages as the model's format takes them, and the beginning of an answer if the last one is that.

    System and developer messages, wherever they stand, become one first system message, in their order. Tool results
    are put into the order of their calls, as the format has no ids.
    """
    items = body.objects("messages")
    if not items:
        raise body.refuse("messages", "is missing or empty: give at least one user message")
    system: list[str] = []
    rest: list[Message] = []
    for item in items:
        role = item.needed_text("role")
        match role:
            case "system" | "developer":
                system.append(text_of(item))
            case "user":
                rest.append(Message("user", user_content(item, served)))
            case "assistant":
                rest.append(_assistant(item))
            case "tool":
                item.ignore("name")
                rest.append(Message("tool", text_of(item), tool_call_id=item.needed_text("tool_call_id")))
            case _:
                raise item.refuse("role", f"must be system, developer, user, assistant or tool, not {role[:40]!r}")
        item.never("name", "the model's format has no names: write it into the content")
        item.end()
    prefill = ""
    if len(rest) > 1 and (last := rest[-1]).role == "assistant" and not last.tool_calls:
        if last.reasoning:
            raise bad("the last message cannot be continued after its reasoning", "messages")
        prefill = rest.pop().text
    whole = [*([Message("system", "\n\n".join(system))] if any(system) else []), *in_call_order(rest)]
    return whole, prefill


def text_of(item: Fields, name: str = "content") -> str:
    """Content that may be text only."""
    content = item.any(name)
    if content is None or isinstance(content, str):
        return content or ""
    pieces = []
    for part in item.objects(name):
        if (kind := part.needed_text("type")) not in ("text", "refusal"):
            raise part.refuse("type", f"{kind[:40]!r} cannot stand in this message, only text can")
        pieces.append(part.needed_text(kind))
        part.ignore("cache_control")
        part.end()
    return "".join(pieces)


def user_content(item: Fields, served: Served) -> str | tuple[Part, ...]:
    content = item.any("content")
    if content is None or isinstance(content, str):
        return content or ""
    return tuple(_part(part, served) for part in item.objects("content"))


def _part(part: Fields, served: Served) -> Part:
    kind = part.needed_text("type")
    part.ignore("cache_control")
    match kind:
        case "text":
            made: Part = TextPart(part.needed_text("text"))
        case "image_url" | "video_url":
            source = part.object(kind)
            if source is None:
                raise part.refuse(kind, "is missing")
            url = source.needed_text("url")
            low = source.choice("detail", ("auto", "low", "high")) == "low"
            source.end()
            made = (ImagePart if kind == "image_url" else VideoPart)(served.fetch(url), LOW_DETAIL if low else None)
        case _:
            raise part.refuse("type", f"{kind[:40]!r} is not understood: use text, image_url or video_url")
    part.end()
    return made


def _assistant(item: Fields) -> Message:
    calls = []
    for call in item.objects("tool_calls", MAX_TOOLS):
        call.only("type", ["function"], "only functions can be called")
        function = call.object("function")
        if function is None:
            raise call.refuse("function", "is missing")
        arguments = function.text("arguments") or "{}"
        calls.append(ToolCall(function.needed_text("name"), arguments_of(function, arguments), call.needed_text("id")))
        call.ignore("index")  # of a delta, which some clients keep
        function.end()
        call.end()
    reasoning = [text for name in ("reasoning_content", "reasoning") if (text := item.text(name)) is not None]
    text = text_of(item) or item.text("refusal") or ""
    item.ignore("refusal", "annotations")
    item.never("audio", "this model has no voice")
    item.never("function_call", "use tool_calls")
    return Message("assistant", text, reasoning[0] if reasoning else None, tuple(calls))


def arguments_of(function: Fields, text: str) -> Mapping[str, Any]:
    try:
        return loads(text.encode())
    except (Refused, UnicodeEncodeError) as error:
        raise function.refuse("arguments", f"must be a JSON object as text ({error})") from error


def in_call_order(messages: Sequence[Message]) -> Iterable[Message]:
    """Each run of tool results in the order of the calls before it. Refuses results without calls, and the reverse."""
    at = 0
    while at < len(messages):
        message = messages[at]
        at += 1
        if message.role == "tool":
            raise bad(
                f"tool result {message.tool_call_id!r} does not follow the assistant message with its call", "messages"
            )
        yield message
        if not message.tool_calls:
            continue
        wanted = [call.id for call in message.tool_calls]
        results: dict[str | None, Message] = {}
        while at < len(messages) and messages[at].role == "tool":
            result = messages[at]
            if result.tool_call_id in results or result.tool_call_id not in wanted:
                reason = "is answered twice" if result.tool_call_id in results else "was not made"
                raise bad(f"tool call {result.tool_call_id!r} {reason}", "messages")
            results[result.tool_call_id] = result
            at += 1
        if len(set(wanted)) < len(wanted):
            raise bad("two tool calls of one message have the same id", "messages")
        if missing := [call for call in wanted if call not in results]:
            raise bad(f"tool call {missing[0]!r} has no result: add a tool message for it", "messages")
        yield from (results[call] for call in wanted)


def tools_of(body: Fields) -> tuple[tuple[Mapping[str, Any], ...], Constraint | None, bool]:
    """(tools, what the answer must be for tool_choice, whether several calls are welcome)."""
    tools: dict[str, Mapping[str, Any]] = {}
    strict = []
    for item in body.objects("tools", MAX_TOOLS):
        item.only("type", ["function"], "only functions can be called")
        if "type" not in item:
            raise item.refuse("type", "is missing: it must be 'function'")
        item.ignore("cache_control")
        function = item.object("function")
        if function is None:
            raise item.refuse("function", "is missing")
        declared = declare(function, tools)
        strict += [declared["name"]] if function.flag("strict") else []
        function.end()
        item.end()
        tools[declared["name"]] = {"type": "function", "function": declared}
    choice = body.any("tool_choice")
    if isinstance(choice, Mapping):
        named = Fields(choice, "tool_choice")
        named.only("type", ["function"], "name one function, or use none, auto or required")
        function = named.object("function") or Fields({}, "tool_choice.function")
        choice = function.needed_text("name")
        named.end()
        function.end()
        names: tuple[str, ...] = (choice,)
        if choice not in tools:
            raise bad(f"tool_choice names {choice[:64]!r}, which is not among the tools", "tool_choice")
    elif body.choice("tool_choice", ("none", "auto", "required")) == "required":
        names = tuple(tools)
        if not tools:
            raise bad("tool_choice is required, but there are no tools", "tool_choice")
    else:
        names = ()
    parallel = body.flag("parallel_tool_calls", True)
    if choice == "none":
        return (), None, parallel
    constraint = (
        Constraint(calls=names, must_call=True) if names else Constraint(calls=tuple(strict)) if strict else None
    )
    return tuple(tools.values()), constraint, parallel


def declare(function: Fields, others: Iterable[str]) -> dict[str, Any]:
    """A function's name, description and parameters, checked."""
    name = function.needed_text("name")
    if not TOOL_NAME.fullmatch(name):
        raise function.refuse("name", f"{name[:80]!r} must be 1 to 128 letters, digits, '_' or '-'")
    if name in others:
        raise function.refuse("name", f"{name!r} is declared twice")
    declared: dict[str, Any] = {"name": name}
    if (description := function.text("description")) is not None:
        declared["description"] = description
    if (parameters := function.mapping("parameters")) is not None:
        check_schema(parameters, function.param("parameters"))
        declared["parameters"] = parameters
    return declared


def format_of(body: Fields, tools: Sequence[Mapping[str, Any]]) -> Constraint | None:
    """What response_format, or a regex or grammar, makes of the answer."""
    found: list[Constraint] = []
    if (wanted := body.object("response_format")) is not None:
        match wanted.needed_text("type"):
            case "text":
                pass
            case "json_object":
                found.append(Constraint("json", "{}" if (s := wanted.mapping("schema")) is None else json.dumps(s)))
            case "json_schema":
                found.append(_schema(wanted))
            case "regex":
                found.append(Constraint("regex", wanted.needed_text("pattern")))
            case "grammar":
                found.append(Constraint("lark", wanted.needed_text("grammar")))
            case kind:
                raise wanted.refuse("type", f"{kind[:40]!r} must be text, json_object, json_schema, regex or grammar")
        wanted.end()
    if (regex := body.text("guided_regex")) is not None:
        found.append(Constraint("regex", regex))
    if len(found) > 1:
        raise body.refuse("response_format", "and guided_regex both shape the answer: send one of them")
    return replace(found[0], may_call=bool(tools)) if found else None


def _schema(wanted: Fields) -> Constraint:
    inner = wanted.object("json_schema")
    if inner is None:
        raise wanted.refuse("json_schema", "is missing")
    inner.needed_text("name")
    inner.text("description")
    inner.flag("strict")  # it is always strict
    schema = inner.mapping("schema")
    if schema is None:
        raise inner.refuse("schema", "is missing")
    check_schema(schema, inner.param("schema"))
    inner.end()
    return Constraint("json", json.dumps(schema))


def merged(calls: Constraint | None, shape: Constraint | None) -> Constraint | None:
    """Both what calls and what the text must be; a call that must be made leaves no room for text."""
    if calls is None or shape is None or calls.must_call:
        return calls or shape
    return replace(shape, calls=calls.calls)
