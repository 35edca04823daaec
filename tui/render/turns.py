"""A turn -> the pieces that show it."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

from ..chat.tools import shown
from ..chat.turns import Turn
from ..safe import printable
from .blocks import Block, blocks_of
from .pieces import Call, Label, Markdown, Picture, Piece, Thinking, Words, duration

NAMES = {"user": "You", "assistant": "Qwen", "tool": "Tool", "system": "System"}


@dataclass(frozen=True, slots=True)
class View:
    """How a turn is looked at: which version, what is unfolded, Markdown or raw. `media_note` names its pictures."""

    version: int = 1
    versions: int = 1
    open: bool = False
    raw: bool = False
    live: bool = False
    model: str = ""
    results: dict[str, str] = field(default_factory=dict)  # of its tool calls, by id


def pieces_of(turn: Turn, view: View, blocks: Sequence[Block] | None = None) -> list[Piece]:
    """All of a turn; `blocks` are those of its text if they are known already."""
    if turn.role == "tool":
        return []  # shown with the call
    pieces: list[Piece] = [_label(turn, view)]
    if turn.role == "user":
        pieces += [Picture(media, number) for number, media in enumerate(turn.media, 1)]
        pieces.append(Words(printable(turn.text), bar=True))
        return pieces
    if turn.reasoning:
        thinking = view.live and not turn.text and not turn.tool_calls
        pieces.append(Thinking(printable(turn.reasoning), round(turn.seconds, 1), thinking, view.open, gap=False))
    if view.raw:
        pieces.append(Words(printable(turn.text), gap=bool(turn.reasoning)))
    else:
        parts = list(blocks_of(printable(turn.text)) if blocks is None else blocks)
        if parts and turn.reasoning:
            parts[0] = replace(parts[0], gap=True)
        pieces += [Markdown(block) for block in parts]
    for call in turn.tool_calls:
        pieces.append(
            Call(printable(call.name), printable(shown(call.arguments)), _result(view, call.id), view.open)
        )  # fmt: skip
    if turn.error:
        pieces.append(Words(f"✗ {printable(turn.error)}", "error", gap=True))
    if not view.live:
        pieces += _footer(turn)
    return pieces


def _result(view: View, call: str) -> str | None:
    result = view.results.get(call)
    return None if result is None else printable(result)


def _label(turn: Turn, view: View) -> Label:
    when = datetime.fromtimestamp(turn.created).strftime("%H:%M") if turn.created else ""
    note = {"writing": "" if view.live else "interrupted", "stopped": "stopped", "length": "cut at the token limit"}
    marks = [when, note.get(turn.status, "")]
    role = "user" if turn.role == "user" else "heading"
    return Label(NAMES[turn.role], role, view.version, view.versions, "  ".join(mark for mark in marks if mark))


def _footer(turn: Turn) -> list[Piece]:
    stats = turn.stats
    if not stats:
        return []
    parts = [f"{stats['tokens']} tokens", f"{stats['speed']:.1f} tok/s", f"first after {duration(stats['first'])}"]
    cached = f", {stats['cached']} reused" if stats["cached"] else ""
    parts.append(f"prompt {stats['prompt']}{cached}")
    return [Words(" · ".join(parts), "dim", gap=True)]
