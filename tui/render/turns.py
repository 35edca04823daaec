"""A turn -> the pieces that show it."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

from ..chat.tools import shown
from ..chat.turns import Turn
from ..safe import printable
from .blocks import Block, blocks_of
from .pieces import Call, Label, Markdown, Picture, Piece, Thinking, Words

NAMES = {"user": "You", "assistant": "Qwen", "tool": "Tool", "system": "System"}
ENDINGS = {"stopped": "stopped", "length": "cut at the token limit"}


@dataclass(frozen=True, slots=True)
class View:
    """How a turn is looked at: which version, what is unfolded, Markdown or raw. `live`: it is being written.

    `continues`: it goes on after the result of its own tool call, so it needs no name of its own.
    """

    version: int = 1
    versions: int = 1
    open: bool = False
    raw: bool = False
    live: bool = False
    continues: bool = False
    results: dict[str, str] = field(default_factory=dict)  # of its tool calls, by id


def pieces_of(turn: Turn, view: View, blocks: Sequence[Block] | None = None) -> list[Piece]:
    """All of a turn; `blocks` are those of its text if they are known already."""
    if turn.role == "tool":
        return []  # shown with the call
    if turn.role == "user":
        pictures = [Picture(media, number) for number, media in enumerate(turn.media, 1)]
        return [_label(turn, view), *pictures, Words(printable(turn.text), bar=True)]
    pieces: list[Piece] = []
    if not view.continues or view.versions > 1 or turn.status != "done":
        pieces.append(_label(turn, view))
    if turn.reasoning:
        thinking = view.live and not turn.text and not turn.tool_calls
        pieces.append(Thinking(printable(turn.reasoning), round(turn.seconds, 1), thinking, view.open, not pieces))
    if view.raw:
        pieces.append(Words(printable(turn.text), gap=bool(turn.reasoning)))
    else:
        parts = list(blocks_of(printable(turn.text)) if blocks is None else blocks)
        if parts and (turn.reasoning or not pieces):
            parts[0] = replace(parts[0], gap=True)
        pieces += [Markdown(block) for block in parts]
    for call in turn.tool_calls:
        result = view.results.get(call.id)
        result = None if result is None else printable(result)
        gap = len(pieces) != 1 or not isinstance(pieces[0], Label)
        pieces.append(Call(printable(call.name), printable(shown(call.arguments)), result, view.open, gap))
    if turn.status == "done" and not (turn.text.strip() or turn.tool_calls):
        pieces.append(Words("the model said nothing", "dim", gap=True))
    if turn.error:
        pieces.append(Words(f"✗ {printable(turn.error)}", "error", gap=True))
    return pieces


def _label(turn: Turn, view: View) -> Label:
    """Who, when, and for an answer how fast: one quiet line."""
    marks = [datetime.fromtimestamp(turn.created).strftime("%H:%M") if turn.created else ""]
    if turn.stats:
        marks.append(f"{turn.stats['tokens']:,} tokens at {turn.stats['speed']:.1f}/s")
    if turn.status == "writing" and not view.live:
        marks.append("interrupted")
    marks.append(ENDINGS.get(turn.status, ""))
    role = "user" if turn.role == "user" else "heading"
    return Label(NAMES[turn.role], role, view.version, view.versions, " · ".join(mark for mark in marks if mark))
