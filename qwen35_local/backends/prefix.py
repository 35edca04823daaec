"""How much of a prompt a session knows already, and where it is worth keeping the recurrent state. Pure.

Keys and values can be cut back anywhere; a recurrent state only exists where a snapshot was taken. Prompts part from
one another where messages begin, so that is where snapshots go, and every few thousand tokens inside long ones.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from ..chat.tokenizer import Tokenizer

EVERY = 8192  # tokens of one message between two snapshots: what a change in a long text costs to read again


@dataclass(frozen=True, slots=True)
class Landmarks:
    """The tokens that say where messages begin (`<|im_start|>`) and whose they are."""

    turn: int
    user: int
    tool_response: int

    @classmethod
    def of(cls, tokenizer: Tokenizer) -> "Landmarks":
        special = tokenizer.special
        return cls(special["<|im_start|>"], tokenizer.encode("user\n")[0], special["<tool_response>"])


def common_prefix(a: Sequence[int], b: Sequence[int]) -> int:
    """How many leading tokens two lists share."""
    length = min(len(a), len(b))
    differs = np.flatnonzero(np.asarray(a[:length], np.int64) != np.asarray(b[:length], np.int64))
    return int(differs[0]) if len(differs) else length


def places(ids: Sequence[int], landmarks: Landmarks, every: int = EVERY) -> tuple[list[int], list[int]]:
    """(every place in 1..len(ids)-1 where a snapshot could help, ascending; those of them that help most).

    A place is a number of tokens. Most helpful: before the coming answer; before the first answer to the last question
    (the next question rewrites all from there, without its thinking); after a leading system message.
    """
    tokens = np.asarray(ids, np.int64)
    starts = np.flatnonzero(tokens == landmarks.turn)
    found = {int(at) for at in starts if at > 0}
    best = [int(starts[-1])] if len(starts) else []
    responses = np.flatnonzero(tokens == landmarks.tool_response)
    for at, end in reversed(list(pairwise(starts))):
        asked = at + 1 < len(ids) and tokens[at + 1] == landmarks.user
        if asked and not np.any((responses > at) & (responses < end)):
            best.append(int(end))
            break
    if len(starts) > 1:
        best.append(int(starts[1] if starts[0] == 0 else starts[0]))
    edges = [0, *sorted(found), len(ids)]
    for begin, end in pairwise(edges):
        found.update(range(begin + every, end, every))
    return sorted(found), list(dict.fromkeys(place for place in best if place in found))


@dataclass(frozen=True, slots=True)
class Grid:
    """The only places where the blocks of a reproducible prompt begin: at messages, and every `block` tokens after one.

    A block's sums depend on which tokens are in it, by the last bit. So where blocks begin must depend on the prompt
    alone, not on what was known of it; what is gone on from must itself have been read so.
    """

    landmarks: Landmarks
    block: int

    def breaks(self, ids: Sequence[int]) -> list[int]:
        """Where messages begin, ascending."""
        return np.flatnonzero(np.asarray(ids, np.int64) == self.landmarks.turn).tolist()

    def has(self, ids: Sequence[int], at: int) -> bool:
        """Whether a block of `ids` begins or ends after `at` tokens."""
        last = max((start for start in self.breaks(ids) if start <= at), default=0)
        return at == len(ids) or (at - last) % self.block == 0


def survivors(found: Collection[int], best: Sequence[int], end: int, most: int) -> list[int]:
    """At most `most` of the places `found`, ascending: `best` first, then the others, thinned out away from the end.

    The place given up first is the one whose neighbours would cost least to read again from, relative to how far it
    lies back: what is near the end is likelier to change.
    """
    kept = [place for place in best if place in found][:most]
    rest = sorted(set(found) - set(kept))
    if len(rest) > 4 * most:  # hundreds of turns: first one of each small range of distances, nearest its beginning
        rest = list({int(16 * np.log2(end - place + 1)): place for place in reversed(rest)}.values())
    others = sorted(rest)
    while len(kept) + len(others) > most:
        taken = sorted([*kept, *others])
        before = dict(zip(taken, [0, *taken], strict=False))
        others.remove(min(others, key=lambda place: (place - before[place]) / (end - place + 1)))
    return sorted([*kept, *others])


def longest(snapshots: Sequence[int], common: int, total: int) -> int:
    """The longest of `snapshots` (numbers of tokens) that a prompt of `total` tokens can go on from, of which `common`
    are known. One token at least must be read, for there to be logits. 0 if there is none."""
    return max((tokens for tokens in snapshots if tokens <= min(common, total - 1)), default=0)


def passes(edges: Sequence[int], most: int) -> list[int]:
    """Those of `edges` where a pass ends, so that none takes more than `most` tokens unless a single block does."""
    taken = [edges[0]]
    for edge, following in pairwise([*edges[1:], float("inf")]):
        if following - taken[-1] > most:
            taken.append(int(edge))
    return taken
