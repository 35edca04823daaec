"""A conversation as a tree of turns: editing or regenerating adds a sibling, nothing is ever overwritten."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from qwen35_local.engine import Message, Part, Role, TextPart
from qwen35_local.events import ToolCall

from .media import Media

# "writing" is the state of an answer that a process began and has not ended: after a crash it stays that way.
Status = Literal["done", "writing", "stopped", "length", "error"]


@dataclass(frozen=True, slots=True)
class Turn:
    """One message. `parent` 0 is the start. `seconds` is how long it thought; `error` a sentence, if it failed.

    `note` is shown beside the name; `stats` are numbers by name, for the line below an answer.
    """

    id: int
    parent: int
    role: Role
    text: str = ""
    reasoning: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str = ""
    status: Status = "done"
    error: str = ""
    seconds: float = 0.0
    stats: Mapping[str, Any] = field(default_factory=dict)
    media: tuple[Media, ...] = ()
    created: float = 0.0

    @property
    def message(self) -> Message:
        """As the engine takes it."""
        if self.role == "assistant":
            return Message("assistant", self.text, self.reasoning, self.tool_calls)
        content: str | tuple[Part, ...] = self.text
        if self.media:
            content = (*(media.part for media in self.media), TextPart(self.text))
        return Message(self.role, content, tool_call_id=self.tool_call_id or None)


class Tree:
    """Turns by id, and the leaf that is shown. Ids grow with time."""

    def __init__(self, turns: Iterable[Turn] = (), leaf: int = 0):
        self._turns = {turn.id: turn for turn in turns}
        self._children: dict[int, list[int]] = {}
        for turn in sorted(self._turns.values(), key=lambda turn: turn.id):
            self._children.setdefault(turn.parent, []).append(turn.id)
        self.leaf = leaf if leaf in self._turns else self._deepest(0)

    def __getitem__(self, turn: int) -> Turn:
        return self._turns[turn]

    def __contains__(self, turn: int) -> bool:
        return turn in self._turns

    def __len__(self) -> int:
        return len(self._turns)

    def put(self, turn: Turn) -> None:
        """Add a turn, or the new state of one. A new one becomes the leaf."""
        if turn.id not in self._turns:
            self._children.setdefault(turn.parent, []).append(turn.id)
            self.leaf = turn.id
        self._turns[turn.id] = turn

    def path(self, leaf: int | None = None) -> list[Turn]:
        """From the first turn to the leaf."""
        path: list[Turn] = []
        at = self.leaf if leaf is None else leaf
        while at in self._turns:
            path.append(self._turns[at])
            at = path[-1].parent
        return path[::-1]

    def versions(self, turn: int) -> list[int]:
        """The turn and its siblings, oldest first."""
        return self._children.get(self._turns[turn].parent, [turn])

    def switch(self, turn: int, by: int) -> bool:
        """Show the version before (-1) or after (1) this one and the newest that follows; whether there is one."""
        versions = self.versions(turn)
        at = versions.index(turn) + by
        if not 0 <= at < len(versions):
            return False
        self.leaf = self._deepest(versions[at])
        return True

    def _deepest(self, turn: int) -> int:
        """The newest leaf below `turn`."""
        while children := self._children.get(turn):
            turn = children[-1]
        return turn
