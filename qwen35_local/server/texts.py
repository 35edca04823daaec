"""Text, tokens and prompts as the model sees them: /tokenize, /detokenize, /apply-template. Pure."""

from collections.abc import Mapping
from typing import Any

from ..engine import Engine
from .asked import Served
from .fields import Fields
from .openai import parse_chat


def tokenize(value: Mapping[str, Any], served: Served, engine: Engine) -> dict[str, Any]:
    """Token ids of `content`; control tokens are recognised unless `parse_special` is false."""
    body = Fields(value)
    served.check_model(body.text("model"))
    ids = engine.tokenize(body.needed_text("content"), special=body.flag("parse_special", True))
    pieces = body.flag("with_pieces")
    body.only("add_special", [False], "this model has no tokens that go around a text")
    body.end()
    return {"tokens": [{"id": token, "piece": engine.detokenize([token])} for token in ids] if pieces else ids}


def detokenize(value: Mapping[str, Any], served: Served, engine: Engine) -> dict[str, Any]:
    body = Fields(value)
    served.check_model(body.text("model"))
    ids = body.array("tokens")
    if not all(
        isinstance(token, int) and not isinstance(token, bool) and 0 <= token < served.vocab_size for token in ids
    ):
        raise body.refuse("tokens", f"must be token ids from 0 to {served.vocab_size - 1}")
    body.end()
    return {"content": engine.detokenize(ids)}


def apply_template(value: Mapping[str, Any], served: Served, engine: Engine) -> dict[str, Any]:
    """The prompt of a chat completions request, as text and as tokens."""
    ids = engine.prompt(parse_chat(value, served).request)
    return {"prompt": engine.detokenize(ids), "tokens": list(ids)}
