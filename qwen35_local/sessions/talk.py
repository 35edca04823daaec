"""What was said in a session, as JSON: small, written after every turn, good for any model."""

import base64
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..engine import ImagePart, Message, Part, TextPart, message_of
from ..errors import Qwen35Error, SessionError, StorageError
from .file import replace

FORMAT = 1


def read_talk(path: Path) -> tuple[Message, ...]:
    """The messages in a file; none if there is no file. Raises SessionError, and leaves the file as it is."""
    try:
        found = json.loads(path.read_bytes())
    except FileNotFoundError:
        return ()
    except (OSError, ValueError) as error:
        raise SessionError(f"{path.name} cannot be read: {error}; move it away to begin anew") from error
    if not isinstance(found, Mapping) or found.get("format") != FORMAT:
        version = found.get("format") if isinstance(found, Mapping) else None
        raise SessionError(f"{path.name} is in format {version!r} and this program reads {FORMAT}: it is left alone")
    messages = found.get("messages")
    if not isinstance(messages, list) or found.get("blake2b") != _digest(messages):
        raise SessionError(f"{path.name} is damaged: its checksum is another; mend it, or move it away to begin anew")
    try:
        return tuple(message_of(message) for message in messages)
    except Qwen35Error as error:
        raise SessionError(f"{path.name} holds a message that cannot be used: {error}") from error


def write_talk(path: Path, messages: Sequence[Message]) -> None:
    """Replace the file, whole or not at all. Raises StorageError."""
    values = [message_json(message) for message in messages]
    text = json.dumps({"format": FORMAT, "blake2b": _digest(values), "messages": values}, ensure_ascii=False, indent=1)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with part.open("w", encoding="utf-8") as file:
            os.fchmod(file.fileno(), 0o600)
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        replace(part, path)
    except OSError as error:
        raise StorageError(f"{path} cannot be written: {error.strerror}; what was there is kept") from error


def message_json(message: Message) -> dict[str, Any]:
    """The dict of which `message_of` makes the same message."""
    content: Any = message.content
    if not isinstance(content, str):
        content = [_part_json(part) for part in content]
    found: dict[str, Any] = {"role": message.role, "content": content}
    if message.reasoning is not None:
        found["reasoning_content"] = message.reasoning
    if message.tool_calls:
        calls = [
            {"id": call.id, "function": {"name": call.name, "arguments": call.arguments}} for call in message.tool_calls
        ]
        found["tool_calls"] = calls
    if message.tool_call_id is not None:
        found["tool_call_id"] = message.tool_call_id
    return found


def _part_json(part: Part) -> dict[str, Any]:
    if isinstance(part, TextPart):
        return {"type": "text", "text": part.text}
    kind = "image" if isinstance(part, ImagePart) else "video"
    data = f"data:application/octet-stream;base64,{base64.b64encode(part.data).decode()}"
    return {"type": kind, "data": data, **({"max_pixels": part.max_pixels} if part.max_pixels else {})}


def _digest(messages: Sequence[Any]) -> str:
    text = json.dumps(messages, ensure_ascii=True, sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
