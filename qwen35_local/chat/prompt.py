"""A request -> the tokens that the model is given."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

from ..engine import ChatRequest, ImagePart, Prompt, Seen, Span, VideoPart
from .said import Digest, Said
from .template import Segment, render, turns
from .tokenizer import Tokenizer

END = Segment("<|im_end|>\n", markup=True)
OPEN, CLOSE = "<|vision_start|>", "<|vision_end|>"
IMAGE_PAD, VIDEO_PAD = "<|image_pad|>", "<|video_pad|>"
Look = Callable[[ImagePart | VideoPart], Seen]


def prompt_of(request: ChatRequest, tokenizer: Tokenizer, said: Said | None = None, look: Look | None = None) -> Prompt:
    """The conversation, up to where the answer goes on. Raises TemplateError as `render` does, and what `look` raises.

    Answers in `said` are put back token for token where the format has them whole. `look` prices pictures and clips,
    which then take the tokens they need; without it each stays a single one.
    """
    if request.raw:
        return Prompt(request.raw)
    # An answer that has begun has no thinking before it any more.
    preserve = request.preserve_thinking
    segments = render(
        request.messages, request.tools, request.thinking and not request.prefill, preserve_thinking=preserve
    )
    writer = _Writer(tokenizer, look)
    if said is None:
        writer.write([*segments, Segment(request.prefill, markup=False)])
        return writer.prompt
    seen = Digest()
    pending: list[Segment] = []
    for turn in turns(request.messages, request.tools, preserve):
        if turn.whole and turn.message is not None:
            # An answer begins and ends with control tokens, across which no tokens join.
            seen.update(writer.write(pending).identity)
            pending = []
            if (exact := said.find(seen, turn.message)) is not None:
                writer.ids.extend(exact)
                seen.update(exact)
                pending.append(END)
                continue
        pending += turn.segments
    writer.write([*pending, segments[-1], Segment(request.prefill, markup=False)])
    return writer.prompt


def price(part: ImagePart | VideoPart, tokenizer: Tokenizer, look: Look) -> int:
    """Tokens that a picture or clip takes in a prompt, its marks and times included."""
    return len(_Writer(tokenizer, look).write([Segment("", markup=True, media=part)]))


class _Writer:
    """Segments to tokens, piece by piece, with pictures and clips as the released processor writes them."""

    def __init__(self, tokenizer: Tokenizer, look: Look | None):
        self._tokenizer, self._look = tokenizer, look
        self.ids: list[int] = []
        self._spans: list[Span] = []

    @property
    def prompt(self) -> Prompt:
        return Prompt(self.ids, self._spans)

    def write(self, segments: Iterable[Segment]) -> Prompt:
        """Append; gives what was appended by itself."""
        seen: list[Seen] = []
        ids = self._tokenizer.encode_segments(self._expanded(segments, seen))
        begin = len(self.ids)
        self.ids += ids
        if not seen:
            return Prompt(ids)
        # Each run of pads follows an opening mark, which text cannot spell.
        opening = self._tokenizer.special[OPEN]
        starts = (at + 1 for at, token in enumerate(ids) if token == opening)
        pairs = [(it, frame) for it in seen for frame in range(1 if it.seconds is None else len(it.seconds))]
        spans = [Span(next(starts), it.rows, it.columns, it, frame) for it, frame in pairs]
        self._spans += [replace(span, start=begin + span.start) for span in spans]
        return Prompt(ids, spans)

    def _expanded(self, segments: Iterable[Segment], seen: list[Seen]) -> Iterator[Segment]:
        """A picture between its marks, of a clip each pair of frames after its time; they are added to `seen`."""
        for segment in segments:
            if segment.media is None or self._look is None:
                yield segment
                continue
            it = self._look(segment.media)
            seen.append(it)
            tokens = it.rows * it.columns
            if it.seconds is None:
                yield Segment(OPEN + IMAGE_PAD * tokens + CLOSE, markup=True)
            for second in it.seconds or ():
                yield Segment(f"<{second:.1f} seconds>{OPEN}{VIDEO_PAD * tokens}{CLOSE}", markup=True)
