"""The exact tokens of past answers, put back when a client sends the answer as JSON.

JSON keeps what an answer means, not how it was written: clients drop its thinking, and calls come back parsed. Rendered
again, the turn would differ from what the model's state has read, and all after it would have to be read again.
Nothing here is trusted more than the template: tokens are put back only after the very same tokens, for a message that
says the same.
"""

from array import array
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import blake2b

from ..engine import Message

ANSWERS = 512  # remembered; at 4 bytes a token a few megabytes


class Digest:
    """A running fingerprint of a list of tokens, of a prompt's identity where it has pictures."""

    def __init__(self, ids: Iterable[int] = ()):
        self._hash = blake2b(digest_size=16)
        self.update(ids)

    def update(self, ids: Iterable[int]) -> None:
        self._hash.update(array("q", ids).tobytes())

    @property
    def value(self) -> bytes:
        return self._hash.digest()


@dataclass(frozen=True, slots=True)
class _Answer:
    message: Message
    ids: array


class Said:
    """Answers by what came before them, the least recently used forgotten first."""

    def __init__(self, most: int = ANSWERS):
        self._most = most
        self._answers: OrderedDict[bytes, list[_Answer]] = OrderedDict()

    def keep(self, prompt: Sequence[int], answer: Sequence[int], message: Message, turn: int) -> None:
        """`answer` are the tokens generated after `prompt` (its identity), which amount to `message`; `turn` is
        `<|im_start|>`."""
        start = next((at for at in range(len(prompt) - 1, -1, -1) if prompt[at] == turn), None)
        if start is None:
            return
        key = Digest(prompt[:start]).value
        others = [kept for kept in self._answers.pop(key, []) if not _same(kept.message, message)]
        self._answers[key] = [*others, _Answer(message, array("I", [*prompt[start:], *answer]))]
        while sum(map(len, self._answers.values())) > self._most:
            self._answers.popitem(last=False)

    def find(self, before: Digest, message: Message) -> Sequence[int] | None:
        """The tokens of `message` after those of `before`, from `<|im_start|>` to before its `<|im_end|>`."""
        key = before.value
        for kept in reversed(self._answers.get(key, ())):
            if _same(kept.message, message):
                self._answers.move_to_end(key)
                return kept.ids
        return None

    def along(self, timelines: Iterable[Sequence[int]], turn: int) -> list[tuple[bytes, Message, Sequence[int]]]:
        """(key, message, tokens) of the answers that belong to these lists of tokens, for `put` in another process."""
        keys: dict[bytes, None] = {}
        for ids in timelines:
            seen, done = Digest(), 0
            for at in (place for place, token in enumerate(ids) if token == turn):
                seen.update(ids[done:at])
                done = at
                keys[seen.value] = None
        return [(key, kept.message, kept.ids) for key in keys for kept in self._answers.get(key, ())]

    def put(self, key: bytes, message: Message, ids: Sequence[int]) -> None:
        """Remember an answer that `along` told."""
        self._answers.setdefault(key, []).append(_Answer(message, array("I", ids)))


def _same(said: Message, sent: Message) -> bool:
    """Whether a client may have meant this answer: thinking may be missing, blanks at the ends and ids of calls differ.

    An answer that thought and an equal one that did not are told apart by nothing that clients send: the last counts.
    """
    reasoning = (sent.reasoning or "").strip()
    calls = [(call.name, dict(call.arguments)) for call in said.tool_calls]
    return (
        isinstance(sent.content, str)
        and sent.text.strip() == said.text.strip()
        and reasoning in ("", (said.reasoning or "").strip())
        and [(call.name, dict(call.arguments)) for call in sent.tool_calls] == calls
    )
