"""JSON schemas from requests: refused where they could not be honoured, or would take us for a ride."""

from collections.abc import Mapping, Sequence
from typing import Any

from .refusal import bad

MAX_NODES = 50_000


def check_schema(schema: Mapping[str, Any], param: str) -> None:
    """Raise Refused for a schema that refers to another document or is too large."""
    waiting: list[Any] = [schema]
    nodes = 0
    while waiting:
        node = waiting.pop()
        nodes += 1
        if nodes > MAX_NODES:
            raise bad(f"{param} has more than {MAX_NODES} parts", param)
        if isinstance(node, Mapping):
            reference = node.get("$ref")
            if isinstance(reference, str) and not reference.startswith("#"):
                raise bad(
                    f"{param} refers to {reference[:80]!r}: only references inside the schema are followed", param
                )
            waiting += node.values()
        elif isinstance(node, Sequence) and not isinstance(node, str):
            waiting += node
