"""A chat as a file: Markdown for people, JSON in the OpenAI form for programs."""

import base64
import json
from collections.abc import Sequence
from typing import Any

from .chat.media import Media
from .chat.turns import Turn

SPEAKERS = {"user": "You", "assistant": "Qwen", "tool": "Tool result", "system": "System"}
FORMATS = ("md", "json")


def to_markdown(title: str, turns: Sequence[Turn], system: str = "") -> str:
    """Thinking becomes a quote, calls and results code blocks; pictures are named, not included."""
    parts = [f"# {title or 'Chat'}"]
    if system:
        parts.append(f"## System\n\n{system}")
    for turn in turns:
        parts.append(f"## {SPEAKERS[turn.role]}")
        parts += [f"*[{media.kind}: {media.name}{seen(media)}]*" for media in turn.media]
        if turn.reasoning.strip():
            parts.append("\n".join(f"> {line}".rstrip() for line in turn.reasoning.strip().split("\n")))
        if turn.text.strip():
            parts.append(f"```\n{turn.text}\n```" if turn.role == "tool" else turn.text.strip("\n"))
        for call in turn.tool_calls:
            parts.append(f"```json\n{json.dumps({call.name: call.arguments}, ensure_ascii=False)}\n```")
        if turn.error:
            parts.append(f"**Error:** {turn.error}")
    return "\n\n".join(parts) + "\n"


def seen(media: Media) -> str:
    return f", {media.sight.note}" if media.sight else ""


def to_json(title: str, turns: Sequence[Turn], system: str = "") -> str:
    """{"title", "messages"}: messages as the OpenAI chat API takes them, thinking as `reasoning_content`."""
    messages: list[dict[str, Any]] = [{"role": "system", "content": system}] if system else []
    messages += [_message(turn) for turn in turns]
    return json.dumps({"title": title, "messages": messages}, indent=1, ensure_ascii=False) + "\n"


def _message(turn: Turn) -> dict[str, Any]:
    message: dict[str, Any] = {"role": turn.role, "content": turn.text}
    if turn.media:
        message["content"] = [*(_media(media) for media in turn.media), {"type": "text", "text": turn.text}]
    if turn.reasoning:
        message["reasoning_content"] = turn.reasoning
    if turn.tool_calls:
        message["tool_calls"] = [
            {
                "id": call.id,
                "type": "function",
                "function": {"name": call.name, "arguments": json.dumps(call.arguments, ensure_ascii=False)},
            }
            for call in turn.tool_calls
        ]
    if turn.tool_call_id:
        message["tool_call_id"] = turn.tool_call_id
    return message


def _media(media: Media) -> dict[str, Any]:
    kind = "image_url" if media.kind == "image" else "video_url"
    subtype = media.name.rpartition(".")[2].lower() or "png"
    url = f"data:{media.kind}/{subtype};base64,{base64.b64encode(media.data).decode()}"
    return {"type": kind, kind: {"url": url}}
