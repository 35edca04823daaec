"""Text -> the value that a JSON schema asks for. Types come from the schema, never from what the text looks like."""

import ast
import json
import math
import re
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

_WHOLE = re.compile(r"[+-]?[0-9]+")
_DECIMAL = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")


def typed(value: str, schema: Any, root: Mapping[str, Any] | None = None) -> Any:
    """`value` as its schema wants it; what cannot be decoded stays text. `root` is where its `$ref`s point into."""
    allowed, members = _allowed(schema, root or {})
    decoded = json_or_none(value) if members else None
    for member in members:
        # `1 == True` in Python, so the types are compared too.
        if value == _spelled(member) or (decoded == member and type(decoded) is type(member) is not str):
            return member
    if "null" in allowed and value.strip() in ("null", "None"):
        return None
    if allowed & {"object", "array"}:
        structure = _structure(value)
        if ("object" if isinstance(structure, dict) else "array") in allowed and structure is not None:
            return structure
    # Where text is allowed too, "42" and "true" are text: the schema does not say otherwise.
    if "string" in allowed or not allowed:
        return value
    if "boolean" in allowed and value.strip().lower() in ("true", "false"):
        return value.strip().lower() == "true"
    if allowed & {"integer", "number"}:
        return _number(value, whole="number" not in allowed)
    return value


def _allowed(schema: Any, root: Mapping[str, Any]) -> tuple[set[str], list[Any]]:
    """(type names, enum members) that a schema allows; no types where it does not say."""
    types: set[str] = set()
    members: list[Any] = []
    waiting, seen = [schema], set()
    for part in waiting:  # grows while we walk; `seen` ends references that go in circles
        if not isinstance(part, Mapping) or id(part) in seen:
            continue
        seen.add(id(part))
        kinds = part.get("type")
        types |= {kind for kind in ([kinds] if isinstance(kinds, str) else _sequence(kinds)) if isinstance(kind, str)}
        members += [*_sequence(part.get("enum")), *([part["const"]] if "const" in part else [])]
        if isinstance(reference := part.get("$ref"), str):
            waiting.append(_resolve(reference, root))
        for word in ("anyOf", "oneOf", "allOf"):
            waiting += _sequence(part.get(word))
        if "type" not in part:
            types |= {name for name, word in (("object", "properties"), ("array", "items")) if word in part}
    return types, members


def _resolve(reference: str, root: Mapping[str, Any]) -> Any:
    """The part of `root` that a local reference (`#/$defs/Name`) names; nothing is ever fetched."""
    target: Any = root
    if not reference.startswith("#"):
        return None
    for step in filter(None, reference[1:].split("/")):
        target = mapping(target).get(step.replace("~1", "/").replace("~0", "~"))
    return target


def _number(value: str, whole: bool) -> int | float | str:
    """A finite number, or the text as it was."""
    text = value.strip()
    try:
        if _WHOLE.fullmatch(text):
            return int(text)
        number = float(text) if _DECIMAL.fullmatch(text) else math.nan
    except ValueError:  # Python reads no integer of more than 4300 digits
        return value
    if not math.isfinite(number) or (whole and not number.is_integer()):
        return value
    return int(number) if whole else number


def _structure(value: str) -> Any:
    """JSON, or the same in Python's spelling; None where it is neither."""
    if not value.lstrip().startswith(("{", "[")):
        return None
    if (decoded := json_or_none(value)) is not None:
        return decoded
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about escapes in strings that Python would spell otherwise
            return json_or_none(json.dumps(ast.literal_eval(value.strip())))
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
        return None


def json_or_none(text: str) -> Any:
    """Strict JSON (no NaN or Infinity), or None."""
    try:
        return json.loads(text, parse_constant=_refuse, parse_float=_finite)
    except (ValueError, RecursionError):
        return None


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


def _finite(text: str) -> float:
    number = float(text)
    return number if math.isfinite(number) else _refuse(text)  # pyright: ignore[reportReturnType]


def _spelled(value: Any) -> str:
    """A value as the template writes it."""
    return json.dumps(value, ensure_ascii=False) if isinstance(value, Mapping | list) else str(value)


def mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _sequence(value: Any) -> Sequence[Any]:
    return value if isinstance(value, Sequence) and not isinstance(value, str) else ()
