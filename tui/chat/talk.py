"""One conversation in progress: what was said, what is being said, and keeping it on disk.

The app calls `poll` a few times a second and draws what it reports; everything else returns at once.
"""

import sqlite3
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from qwen35_local.engine import ChatRequest, Message
from qwen35_local.errors import Qwen35Error
from qwen35_local.events import Progress

from ..settings import Preferences
from ..store.history import History, new_id
from .answer import Answer
from .host import EngineHost, Reply, sentence
from .media import Media
from .tools import TOOLS, use
from .turns import Status, Tree, Turn

SAVE_EVERY = 0.5  # seconds: what a crash in the middle of an answer may cost
MOST_CALLS = 8  # rounds of tools in one answer, so that a model in a loop comes to an end


@dataclass(frozen=True, slots=True)
class Step:
    """What `poll` found. `text` is new and safe to draw; `changed`: the live turn differs; `ended`: it is over."""

    text: str = ""
    changed: bool = False
    ended: bool = False


class Talk:
    """Asks the engine and keeps the tree. `notice` is a sentence for the user, taken by whoever shows it."""

    def __init__(self, host: EngineHost, history: History, preferences: Callable[[], Preferences]):
        self._host = host
        self._history = history
        self._preferences = preferences
        self._unsaved: dict[int, dict[int, Turn]] = {}  # by chat, then by id
        self._saved_at = 0.0
        self._save_cost = 0.0
        self._rounds = 0
        self._reply: Reply | None = None
        self.answer: Answer | None = None
        self.layers: tuple[Mapping[str, Any], ...] = ()  # of the last answer, if its experts were streamed
        self.notice = history.notice
        self.chat = new_id()
        self.tree = Tree()

    @property
    def busy(self) -> bool:
        return self.answer is not None

    @property
    def asked(self) -> int:
        """The last question."""
        return next((turn.id for turn in reversed(self.tree.path()) if turn.role == "user"), 0)

    # --- verbs

    def ask(self, text: str, media: tuple[Media, ...] = (), parent: int | None = None) -> None:
        """Say something and let the model answer; with `parent`, as a branch beside what already follows it."""
        above = self.tree.leaf if parent is None else parent
        if parent is not None:
            self.tree.leaf = parent
        turn = Turn(new_id(), above, "user", text, media=media, created=time.time())
        self._put(turn)
        self._rounds = 0
        self._begin(turn.id)

    def edit(self, turn: int, text: str, media: tuple[Media, ...] | None = None) -> None:
        """Ask a question anew, in other words, beside the old one."""
        old = self.tree[turn]
        self.ask(text, old.media if media is None else media, old.parent)

    def regenerate(self, turn: int) -> None:
        """Another answer beside this one."""
        at = self.tree[turn]
        while at.role != "user" and at.parent in self.tree:
            at = self.tree[at.parent]
        self._rounds = 0
        self._begin(at.id)

    def go_on(self) -> bool:
        """Let the model go on with an answer that was stopped or cut, from its last word; False if it is whole."""
        turn = self.tree[self.tree.leaf]
        if turn.role != "assistant" or turn.status == "done" or not turn.text or turn.tool_calls:
            return False
        self._rounds = 0
        self._write(replace(turn, status="writing", error=""))
        return True

    def stop(self) -> bool:
        """Stop the answer; whether there was one."""
        if self._reply is not None:
            self._reply.stop()
        return self.busy

    def abandon(self) -> None:
        """End the answer here and now, without waiting for the engine; what there is of it is kept."""
        if self.answer is not None and self._reply is not None:
            self._reply.stop()
            self.answer.feed(self._reply.drain())
            self._finish("stopped")
        self.flush()

    def switch(self, turn: int, by: int) -> bool:
        """Show another version of a turn."""
        moved = not self.busy and self.tree.switch(turn, by)
        if moved:
            self._guarded(lambda: self._history.set_leaf(self.chat, self.tree.leaf))
        return moved

    def open(self, chat: int) -> None:
        """Show a stored chat; raises `sqlite3.Error` if it cannot be read."""
        self.abandon()
        tree = self._history.load(chat)
        self.chat, self.tree = chat, tree

    def new(self) -> None:
        self.abandon()
        self.chat, self.tree = new_id(), Tree()

    # --- the answer

    def poll(self) -> Step:
        """Take what the engine said since the last call."""
        if self.answer is None or self._reply is None:
            if self._unsaved and time.monotonic() - self._saved_at > SAVE_EVERY:
                self.flush()
            return Step()
        ended = self._reply.ended  # before draining: what comes after this look is for the next call
        events = self._reply.drain()
        text = self.answer.feed(events)
        if events:
            self.tree.put(self.answer.turn)
        if ended:
            self._end(self._reply)
        else:
            self._save_now_and_then()
        return Step(text, bool(events), ended)

    @property
    def live(self) -> Turn | None:
        """The turn being written."""
        return self.answer.turn if self.answer else None

    def saw(self, turn: int, media: tuple[Media, ...]) -> None:
        """It is known by now what the model sees of the pictures of a turn, of this chat or of another."""
        if turn in self.tree:
            self.tree.put(replace(self.tree[turn], media=media))
        for turns in self._unsaved.values():
            if turn in turns:
                turns[turn] = replace(turns[turn], media=media)
        self._guarded(lambda: self._history.see(turn, media))

    def flush(self) -> None:
        """Write what is not on disk yet; on failure it stays for the next try."""
        began = time.monotonic()
        for chat, turns in list(self._unsaved.items()):
            leaf = self.tree.leaf if chat == self.chat else max(turns)
            if self._guarded(
                lambda chat=chat, turns=turns, leaf=leaf: self._history.put(chat, [*turns.values()], leaf)
            ):
                del self._unsaved[chat]
        self._saved_at = time.monotonic()
        self._save_cost = self._saved_at - began

    def _begin(self, parent: int) -> None:
        self.tree.leaf = parent
        self._write(Turn(new_id(), parent, "assistant", status="writing", created=time.time()))

    def _write(self, turn: Turn) -> None:
        """Ask for a turn; one that has a text already goes on after it."""
        self._put(turn)
        self.answer = Answer(turn)
        try:
            self._reply = self._host.ask(self._request(turn.parent, turn.text))
        except Qwen35Error as error:
            self._finish("error", sentence(error))
        self.flush()

    def _request(self, leaf: int, begun: str) -> ChatRequest:
        chosen = self._preferences()
        messages = [turn.message for turn in self.tree.path(leaf) if turn.status != "error" or turn.text]
        if chosen.system:
            messages.insert(0, Message("system", chosen.system))
        return ChatRequest(
            tuple(messages),
            tools=TOOLS if chosen.tools else (),
            thinking=chosen.thinking,
            thinking_budget=chosen.thinking_budget if chosen.thinking else None,
            preserve_thinking=chosen.preserve_thinking,
            sampling=chosen.chosen_sampling,
            max_tokens=chosen.max_tokens,
            stop=chosen.stop,
            prefill=begun,
        )

    def _end(self, reply: Reply) -> None:
        status: Status = "error" if reply.error else "stopped" if reply.stopped else "done"
        turn = self._finish(status, reply.error)
        if status == "done" and turn.tool_calls and self._preferences().tools and self._rounds < MOST_CALLS:
            self._rounds += 1
            for call in turn.tool_calls:
                result = use(call, self._found)
                above = self.tree.leaf
                self._put(Turn(new_id(), above, "tool", result, tool_call_id=call.id, created=time.time()))
            self._begin(self.tree.leaf)

    def _finish(self, status: Status, error: str = "") -> Turn:
        assert self.answer is not None
        turn = self.answer.ended(status, error)
        self.layers = self.answer.layers
        self.answer = self._reply = None
        self._put(turn)
        self.flush()
        return turn

    def _found(self, words: str) -> list[str]:
        return [f"{entry.title}: {entry.snippet}" for entry in self._history.search(words, 5)]

    def _put(self, turn: Turn) -> None:
        self.tree.put(turn)
        self._unsaved.setdefault(self.chat, {})[turn.id] = turn

    def _save_now_and_then(self) -> None:
        # A slow disk gets fewer writes: saving may take a twentieth of the time at most.
        if time.monotonic() - self._saved_at > max(SAVE_EVERY, 20 * self._save_cost):
            assert self.answer is not None
            self._put(self.answer.turn)
            self.flush()

    def _guarded(self, write: Callable[[], None]) -> bool:
        """Whether it was written; if not, the app goes on and says so."""
        try:
            write()
        except sqlite3.Error as error:
            self.notice = f"the history could not be saved ({error}); it is kept in memory and tried again"
            return False
        return True


def progress_of(answer: Answer) -> Progress | None:
    """How far the prompt is read, until the first word comes."""
    return answer.progress if answer.tokens == 0 else None
