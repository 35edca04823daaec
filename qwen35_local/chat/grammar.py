"""A constraint -> the set of tokens that may come next, by llguidance.

The grammar begins where thinking ends. A tool's call is held to its schema in the format that the model was trained on,
so enforcing it costs the model nothing that it knows.
"""

import json
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

import numpy as np
from llguidance import LLMatcher, LLTokenizer, TokenizerWrapper

from ..engine import ChatRequest, Constraint
from ..errors import UsageError
from .tokenizer import Tokenizer
from .values import mapping

TEXT_END = "\n</parameter>\n"
PARAM = {"json": "response_format", "regex": "response_format", "lark": "response_format", None: "tools"}


class Mask:
    """What one answer may say next. `apply` masks logits, `accept` goes on by a token."""

    def __init__(self, constraint: Constraint, request: ChatRequest, tokenizer: Tokenizer, thinking: bool):
        """`thinking`: the answer begins in thinking. Raises UsageError for a constraint that nothing can meet."""
        if request.prefill:
            raise UsageError(
                "an answer that has begun cannot be held to a format: leave the last message out", "messages"
            )
        self._matcher = LLMatcher(
            _library(tokenizer), grammar_of(constraint, request, tokenizer, thinking), log_level=0
        )
        if self._matcher.is_error():
            reason = self._matcher.get_error().splitlines()[0][:300]
            raise UsageError(f"the answer cannot be held to this format: {reason}", PARAM[constraint.shape])
        self._until_then = [*tokenizer.eos_ids, tokenizer.special["<tool_call>"]]

    def apply(self, logits: Any) -> Any:
        """A copy of float32 logits [vocab], -inf where the grammar does not go on."""
        bits = np.frombuffer(self._matcher.compute_bitmask(), np.uint8)
        if self._matcher.is_error():
            raise UsageError(f"the format became too complex: {self._matcher.get_error().splitlines()[0][:300]}")
        allowed = np.unpackbits(bits, bitorder="little")[: len(logits)].astype(bool)
        return np.where(allowed, logits, np.float32(-np.inf))

    def while_thinking(self, logits: Any) -> Any:
        """Thinking is free, but must end before anything else does."""
        free = np.array(logits)
        free[self._until_then] = -np.inf
        return free

    def accept(self, token: int) -> None:
        self._matcher.consume_token(token)


@lru_cache(maxsize=2)
def _library(tokenizer: Tokenizer) -> LLTokenizer:
    """The tokenizer as llguidance wants it; a second of work for the released vocabulary, so it is kept."""
    return LLTokenizer(TokenizerWrapper(_Source(tokenizer)), eos_token=sorted(tokenizer.eos_ids))


class _Source:
    """What llguidance asks of a tokenizer."""

    bos_token_id = None

    def __init__(self, tokenizer: Tokenizer):
        self.eos_token_id = tokenizer.special["<|im_end|>"]
        self.tokens = [tokenizer.token_bytes(token) for token in range(tokenizer.size)]
        self.special_token_ids = sorted(tokenizer.special.values())
        self._encode = tokenizer.encode

    def __call__(self, text: str) -> list[int]:
        return self._encode(text)


def grammar_of(constraint: Constraint, request: ChatRequest, tokenizer: Tokenizer, thinking: bool) -> str:
    """llguidance's grammar of a whole answer. Thinking is followed by an empty line, as in training."""
    grammars: list[dict[str, Any]] = []
    ways: list[str] = []
    before = '"\\n\\n" ' if thinking else ""
    lines: list[str] = []
    if constraint.shape == "lark":
        grammars.append({"name": "shape", "lark_grammar": constraint.rule})
        ways.append("@shape")
    elif constraint.shape:
        ways.append("shape")
        rule = f"%json {constraint.rule}" if constraint.shape == "json" else _regex(constraint.rule)
        lines.append(f"shape: {_anything(rule)}")
    elif not constraint.must_call:
        lines.append("free: /(?s:.*)/")
        ways.append("free")
        before = ""  # any text, so the empty line too
    if constraint.calls or constraint.must_call or constraint.may_call:
        ways += ["free calls"] if "free" in ways else ["calls"]
        lines += _calls(constraint, request, tokenizer)
    lark = "\n".join([f"start: {before}({' | '.join(ways)})", *lines])
    return json.dumps({"grammars": [{"lark_grammar": lark}, *grammars]})


def _anything(rule: str) -> str:
    """A schema of `{}` allows bare values too; people who ask for a JSON object mean one."""
    return '%json {"type": "object"}' if rule == "%json {}" else rule


def _regex(pattern: str) -> str:
    return "/" + pattern.replace("/", "\\/") + "/"


def _calls(constraint: Constraint, request: ChatRequest, tokenizer: Tokenizer) -> Iterator[str]:
    """Rules for one or more calls of the tools that may be called."""
    opened, closed = (f"<[{tokenizer.special[name]}]>" for name in ("<tool_call>", "</tool_call>"))
    functions = [mapping(tool.get("function", tool)) for tool in request.tools]
    if constraint.must_call:
        functions = [function for function in functions if function.get("name") in constraint.calls]
    more = ' ("\\n" call)*' if request.parallel_tool_calls else ""
    yield f"calls: call{more}"
    yield f'call: {opened} "\\n" ({" | ".join(f"function{at}" for at in range(len(functions)))}) {closed}'
    for at, function in enumerate(functions):
        yield from _function(f"function{at}", function)


def _function(rule: str, function: Mapping[str, Any]) -> Iterator[str]:
    schema = mapping(function.get("parameters"))
    properties = mapping(schema.get("properties"))
    required = schema.get("required") or ()
    names = []
    for at, (key, value) in enumerate(properties.items()):
        names.append(f"{rule}_p{at}" + ("" if key in required else "?"))
        head = _literal(f"<parameter={key}>\n")
        yield f"{rule}_p{at}: {head} {rule}_v{at}"
        yield from _value(f"{rule}_v{at}", mapping(value), schema)
    head, tail = _literal(f"<function={function.get('name')}>\n"), _literal("</function>\n")
    yield f"{rule}: {head} {' '.join(names)} {tail}"


def _value(rule: str, schema: Mapping[str, Any], root: Mapping[str, Any]) -> Iterator[str]:
    """One value and its closing tag: plain text where text is allowed, JSON where it is not."""
    members = schema.get("enum", [schema["const"]] if "const" in schema else [])
    if members and all(isinstance(member, str) for member in members):
        options = " | ".join(_literal(member) for member in members)
        yield f"{rule}: ({options}) {_literal(TEXT_END)}"
    elif schema.get("type") in ("integer", "number", "boolean", "object", "array") or (
        members and "type" not in schema
    ):
        shared = {name: root[name] for name in ("$defs", "definitions") if name in root}
        yield f"{rule}: %json {json.dumps({**shared, **schema})} {_literal(TEXT_END)}"
    else:
        yield f"{rule}[suffix={_literal(TEXT_END)}]: /(?s:.*)/"


def _literal(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def mask_of(request: ChatRequest, tokenizer: Tokenizer, thinking: bool) -> Mask | None:
    """The mask of a request's answer, if it asks for one."""
    return Mask(request.constraint, request, tokenizer, thinking) if request.constraint else None
