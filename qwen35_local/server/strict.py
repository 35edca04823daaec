"""Bytes -> JSON, strictly: what two parsers could read in two ways is refused. All limits are against being stalled."""

import json
import math
import re
from typing import Any, NoReturn

from .refusal import bad

MAX_DEPTH = 100  # of arrays and objects; the deepest tool schemas seen have about 20
MAX_DIGITS = 40  # of a whole number; 2**64 has 20

_BRACKETS = re.compile(rb'"(?:[^"\\]|\\.)*"|[\[\]{}]', re.DOTALL)
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")


def loads(body: bytes) -> dict[str, Any]:
    """The object that a request body holds. Raises Refused (400) for anything else."""
    if not body:
        raise bad("the request has no body: send a JSON object")
    _check_depth(body)
    try:
        text = body.decode()
    except UnicodeDecodeError as error:
        raise bad(f"the body is not UTF-8: bad byte at {error.start}") from error
    if text.startswith("\ufeff"):
        raise bad("the body begins with a byte order mark: send plain UTF-8")
    try:
        value = json.loads(text, parse_constant=_refuse, parse_float=_finite, parse_int=_whole, object_pairs_hook=_once)
    except ValueError as error:
        raise bad(f"the body is not valid JSON: {error}") from error
    if _SURROGATE.search(body):
        try:
            json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError as error:
            raise bad("the body holds half a character (a lone surrogate)") from error
    if not isinstance(value, dict):
        raise bad(f"the body must be a JSON object, not {type(value).__name__}")
    return value


def _check_depth(body: bytes) -> None:
    depth = 0
    for match in _BRACKETS.finditer(body):
        if (first := match[0][:1]) in b"[{":
            depth += 1
            if depth > MAX_DEPTH:
                raise bad(f"the body is nested deeper than {MAX_DEPTH} levels")
        elif first != b'"':
            depth -= 1


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")


def _finite(text: str) -> float:
    number = float(text)
    return number if math.isfinite(number) else _refuse(text[:20])


def _whole(text: str) -> int:
    if len(text) > MAX_DIGITS:
        raise ValueError(f"a whole number of {len(text)} digits is too long (at most {MAX_DIGITS})")
    return int(text)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{twice[:80]!r} is given twice in one object")
    return made
