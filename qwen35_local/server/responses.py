"""OpenAI's responses request: a dict in, a `ChatRequest` out. Pure, but for what earlier answers left in the store."""

from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ..engine import ChatRequest, Constraint, ImagePart, Message, Part, TextPart
from .asked import EFFORT, Asked, Served, sampling_of, thinking_of
from .fields import Fields
from .openai import format_of, in_call_order, merged
from .refusal import Refused
from .responses_tools import call_of, toolbox_of

KEPT = 64  # answers that later requests can go on from; the oldest goes first


@dataclass(frozen=True)
class Kept:
    """An answer that can be gone on from: its whole conversation, and its body."""

    messages: tuple[Message, ...]
    body: Mapping[str, Any]


class Store:
    """Answers by id, in memory."""

    def __init__(self) -> None:
        self._kept: OrderedDict[str, Kept] = OrderedDict()

    def put(self, name: str, kept: Kept) -> None:
        self._kept[name] = kept
        while len(self._kept) > KEPT:
            self._kept.popitem(last=False)

    def get(self, name: str) -> Kept:
        if name not in self._kept:
            raise Refused(404, f"no response {name[:80]!r} is kept here (the last {KEPT} are)", "previous_response_id")
        return self._kept[name]

    def drop(self, name: str) -> None:
        self.get(name)
        del self._kept[name]


def parse_response(value: Mapping[str, Any], served: Served, store: Store) -> Asked:
    """A responses request. Raises Refused with `param`."""
    body = Fields(value)
    model = served.check_model(body.text("model"))
    previous = body.text("previous_response_id")
    earlier = store.get(previous).messages if previous is not None else ()
    instructions = body.text("instructions") or ""
    messages = _conversation(body, served, instructions, earlier)
    reasoning = body.object("reasoning") or Fields({}, "reasoning")
    effort = reasoning.choice("effort", EFFORT)
    for name in ("summary", "generate_summary"):
        reasoning.only(name, ["auto", "concise", "detailed"], "reasoning comes whole")
    reasoning.end()
    box = toolbox_of(body)
    wanted = _include(body)
    top = body.whole("top_logprobs", 0, 20)
    request = ChatRequest.of(
        messages,
        tools=box.tools,
        **thinking_of(body, effort, served),
        **sampling_of(body),
        max_tokens=body.whole("max_output_tokens", 1),
        top_logprobs=top if top is not None else 0 if "message.output_text.logprobs" in wanted else None,
        parallel_tool_calls=box.parallel,
        constraint=merged(box.constraint, _format(body, box.tools)),
    )
    stream = body.flag("stream")
    options = body.object("stream_options") or Fields({}, "stream_options")
    options.ignore("include_obfuscation")
    options.end()
    keep = body.flag("store", True)
    _refuse_the_rest(body)
    echoed = {name: value[name] for name in ECHOED if value.get(name) is not None}
    extra = {
        "echoed": echoed,
        "store": store if keep else None,
        "names": box.names,
        "messages": _without_instructions(messages, instructions),
    }
    return Asked(request, model, stream, logprobs=request.top_logprobs is not None, extra=extra)


# Fields that the answer repeats.
ECHOED = (
    *("instructions", "max_output_tokens", "metadata", "parallel_tool_calls", "previous_response_id", "reasoning"),
    *("store", "temperature", "text", "tool_choice", "tools", "top_p", "top_logprobs", "user", "safety_identifier"),
)


def _refuse_the_rest(body: Fields) -> None:
    body.only("truncation", ["disabled"], "no message is ever dropped in silence")
    body.only("background", [False], "answers are given to whoever waits for them")
    body.only("service_tier", ["auto", "default"], "there is one tier")
    body.never("prompt", "no prompts are kept here: send instructions and input")
    body.never("conversation", "use previous_response_id, or send the whole input")
    body.never("max_tool_calls", "tools run at the client, which counts them")
    body.never("context_management", "no message is ever dropped here")
    body.ignore(
        "user", "safety_identifier", "metadata", "prompt_cache_key", "prompt_cache_retention", "client_metadata"
    )
    body.end()


def _include(body: Fields) -> Sequence[str]:
    wanted = body.strings("include", 10)
    known = ("reasoning.encrypted_content", "message.output_text.logprobs")
    if unknown := [item for item in wanted if item not in known]:
        raise body.refuse("include", f"{unknown[0][:60]!r} is nothing that this server has")
    return wanted  # reasoning always comes in plain text, so nothing need be encrypted


def _conversation(body: Fields, served: Served, instructions: str, earlier: Sequence[Message]) -> list[Message]:
    given = body.any("input")
    added = [Message("user", given)] if isinstance(given, str) else list(_items(body.objects("input"), served))
    if not added and not earlier:
        raise body.refuse("input", "is missing or empty")
    system = [instructions, *(message.text for message in (*earlier, *added) if message.role == "system")]
    rest = [message for message in (*earlier, *added) if message.role != "system"]
    text = "\n\n".join(filter(None, system))
    return [*([Message("system", text)] if text else []), *in_call_order(_joined(rest))]


def _without_instructions(messages: Sequence[Message], instructions: str) -> tuple[Message, ...]:
    """What a later request goes on from: instructions are said anew each time."""
    if not instructions or not messages or messages[0].role != "system":
        return tuple(messages)
    rest = messages[0].text.removeprefix(instructions).removeprefix("\n\n")
    return (*([Message("system", rest)] if rest else []), *messages[1:])


def _items(items: Sequence[Fields], served: Served) -> Iterator[Message]:
    for item in items:
        kind = item.text("type") or "message"
        match kind:
            case "message":
                yield _message(item, served)
            case "function_call" | "custom_tool_call":
                yield Message("assistant", tool_calls=(call_of(item),))
            case "function_call_output" | "custom_tool_call_output":
                yield Message("tool", _output_text(item), tool_call_id=item.needed_text("call_id"))
            case "reasoning":
                texts = [part.needed_text("text") for part in item.objects("content")]
                item.ignore("summary", "encrypted_content")
                if texts:
                    yield Message("assistant", reasoning="".join(texts))
            case _:
                raise item.refuse("type", f"{kind[:40]!r} is not understood")
        item.ignore("id", "status", "phase")
        item.end()


def _output_text(item: Fields) -> str:
    output = item.any("output")
    if isinstance(output, str):
        return output
    texts = []
    for part in item.objects("output"):
        if part.needed_text("type") not in ("input_text", "output_text", "text"):
            raise part.refuse("type", "must be text: a tool result is text")
        texts.append(part.needed_text("text"))
        part.end()
    return "".join(texts)


def _message(item: Fields, served: Served) -> Message:
    role = item.choice("role", ("system", "developer", "user", "assistant"))
    if role is None:
        raise item.refuse("role", "is missing")
    role = "system" if role == "developer" else role
    content = item.any("content")
    if isinstance(content, str):
        return Message(role, content)  # pyright: ignore[reportArgumentType]  one of the four
    parts: list[Part] = [_part(part, served) for part in item.objects("content")]
    if all(isinstance(part, TextPart) for part in parts):
        return Message(role, "".join(part.text for part in parts if isinstance(part, TextPart)))  # pyright: ignore[reportArgumentType]
    return Message(role, tuple(parts))  # pyright: ignore[reportArgumentType]


def _part(part: Fields, served: Served) -> Part:
    match part.needed_text("type"):
        case "input_text" | "output_text" | "text":
            made: Part = TextPart(part.needed_text("text"))
        case "refusal":
            made = TextPart(part.needed_text("refusal"))
        case "input_image":
            low = part.choice("detail", ("auto", "low", "high")) == "low"
            part.never("file_id", "no files are kept here")
            made = ImagePart(served.fetch(part.needed_text("image_url")), 512 * 512 if low else None)
        case kind:
            raise part.refuse("type", f"{kind[:40]!r} is not understood: use input_text or input_image")
    part.ignore("annotations", "logprobs")
    part.end()
    return made


def _joined(messages: Sequence[Message]) -> list[Message]:
    """Reasoning, text and calls of one turn come as items of their own; the model's format has one message for them."""
    joined: list[Message] = []
    for message in messages:
        last = joined[-1] if joined else None
        if message.role == "assistant" and last is not None and last.role == "assistant":
            thoughts = [text for text in (last.reasoning, message.reasoning) if text is not None]
            joined[-1] = replace(
                last,
                content=last.text + message.text,
                reasoning="\n".join(thoughts) if thoughts else None,
                tool_calls=(*last.tool_calls, *message.tool_calls),
            )
        else:
            joined.append(message)
    return joined


def _format(body: Fields, tools: Sequence[Mapping[str, Any]]) -> Constraint | None:
    text = body.object("text") or Fields({}, "text")
    text.only("verbosity", ["medium"], "this model has no such setting")
    wanted = text.mapping("format")
    text.end()
    if wanted is None:
        return None
    nested = dict(wanted)
    if nested.get("type") == "json_schema":
        inner = {name: nested.pop(name) for name in ("name", "description", "schema", "strict") if name in nested}
        nested["json_schema"] = inner
    return format_of(Fields({"response_format": nested}, "text"), tools)
