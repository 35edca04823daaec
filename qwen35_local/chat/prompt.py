"""A request -> the tokens that the model is given."""

from ..engine import ChatRequest
from .said import Digest, Said
from .template import Segment, render, turns
from .tokenizer import Tokenizer

END = Segment("<|im_end|>\n", markup=True)


def prompt_ids(request: ChatRequest, tokenizer: Tokenizer, said: Said | None = None) -> list[int]:
    """Token ids of the conversation, up to where the answer goes on. Raises TemplateError as `render` does.

    Answers in `said` are put back token for token where the format has them whole.
    """
    if request.raw:
        return list(request.raw)
    # An answer that has begun has no thinking before it any more.
    segments = render(request.messages, request.tools, request.thinking and not request.prefill)
    if said is None:
        return tokenizer.encode_segments([*segments, Segment(request.prefill, markup=False)])
    ids: list[int] = []
    seen = Digest()
    pending: list[Segment] = []
    for turn in turns(request.messages, request.tools):
        if turn.whole and turn.message is not None:
            # An answer begins and ends with control tokens, across which no tokens join.
            before = tokenizer.encode_segments(pending)
            ids, pending = ids + before, []
            seen.update(before)
            if (exact := said.find(seen, turn.message)) is not None:
                ids.extend(exact)
                seen.update(exact)
                pending.append(END)
                continue
        pending += turn.segments
    return ids + tokenizer.encode_segments([*pending, segments[-1], Segment(request.prefill, markup=False)])
