"""A request -> the tokens that the model is given."""

from ..engine import ChatRequest
from .template import Segment, render
from .tokenizer import Tokenizer


def prompt_ids(request: ChatRequest, tokenizer: Tokenizer) -> list[int]:
    """Token ids of the conversation, up to where the answer goes on. Raises TemplateError as `render` does."""
    if request.raw:
        return list(request.raw)
    # An answer that has begun has no thinking before it any more.
    segments = render(request.messages, request.tools, request.thinking and not request.prefill)
    return tokenizer.encode_segments([*segments, Segment(request.prefill, markup=False)])
