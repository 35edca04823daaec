"""Batches of fixed shapes: short rows packed with conversations, long rows, and rows that share a tool prefix.

A batch with pictures has them as stacks, one for each size, and says at which tokens their merged patches stand.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from random import Random

import numpy as np
import torch  # pyright: ignore[reportMissingImports]
from torch import Tensor  # pyright: ignore[reportMissingImports]

from qwen35_local.chat.tokenizer import Tokenizer

from .encode import Encoded, encode, system_prefix
from .mixture import long_task, short_task, sight, tool_tasks
from .task import Task
from .tokenizer import BPE_ENTRIES, CONTROL
from .torch_vision import Grid

PADS = [BPE_ENTRIES + place for place, (name, _) in enumerate(CONTROL) if name in ("<|image_pad|>", "<|video_pad|>")]

SHORT, LONG = (6, 256), (1, 1536)  # rows, tokens; of each worker
PREFIXES, CONTINUATIONS, PREFIX, CONTINUATION = 1, 10, 448, 128
# In each mix: one batch in so many calls tools, and one in so many is long.
EVERY = ((5, 10), (5, 10), (4, 8))
# A cycle of the joint training with pictures: half of the tokens are of the text mixture, and more in the third phase.
JOINT = ("sight", "short", "sight", "tool", "sight", "short", "sight", "tool", "sight", "long")
LATE = ("sight", "short", "tool", "short", "sight", "tool", "sight", "short", "tool", "long")
LAST = ("sight", "short", "sight", "short", "tool", "sight", "short", "sight", "short", "tool")
EYES = ("sight", "short", "sight", "sight", "tool", "sight", "short", "sight", "sight", "tool")


@dataclass
class Batch:
    """ids, segments [B, T]; weight [B, T] of predicting the next token (0: none). prefix: ids, segments [P, L].

    positions [3, B, T] if there are pictures: stacks of them, and the (row, column) of each merged patch, in order.
    """

    ids: Tensor
    segments: Tensor
    weight: Tensor
    prefix: tuple[Tensor, Tensor] | None = None
    positions: Tensor | None = None
    pictures: Sequence[tuple[Tensor, Grid]] = ()
    pads: tuple[Tensor, Tensor] | None = None

    @property
    def tokens(self) -> int:
        return self.ids.numel() + (self.prefix[0].numel() if self.prefix else 0)


def pack(items: Iterable[Encoded], rows: int, length: int) -> tuple[Batch, list[list[Encoded]]]:
    """Best fit, longest first; what fits nowhere is left out. The second value says what is in each row."""
    space = [length] * rows
    content: list[list[Encoded]] = [[] for _ in range(rows)]
    for item in sorted(items, key=lambda item: -len(item.ids)):
        fitting = [row for row in range(rows) if space[row] >= len(item.ids)]
        if fitting:
            row = min(fitting, key=lambda row: space[row])
            space[row] -= len(item.ids)
            content[row].append(item)
    ids = torch.zeros(rows, length, dtype=torch.long)
    segments = torch.zeros(rows, length, dtype=torch.long)
    weight = torch.zeros(rows, length)
    where: list[tuple[int, int, Encoded]] = []
    for row, items_of_row in enumerate(content):
        at = 0
        for number, item in enumerate(items_of_row, 1):
            fill(ids[row], segments[row], weight[row], at, item, number)
            where.append((row, at, item))
            at += len(item.ids)
    batch = Batch(ids, segments, weight)
    if any(item.seen for _, _, item in where):
        add_pictures(batch, where)
    return batch, content


def add_pictures(batch: Batch, where: Sequence[tuple[int, int, Encoded]]) -> None:
    """Positions, stacks of pictures and where their merged patches stand; `where` are (row, first column, item)."""
    rows, length = batch.ids.shape
    positions = batch.positions = torch.arange(length).expand(3, rows, length).clone()
    stacks: dict[Grid, list[tuple[np.ndarray, np.ndarray]]] = {}
    for row, at, item in where:
        if item.positions is None:
            continue
        n = len(item.ids)
        positions[:, row, at : at + n] = torch.from_numpy(item.positions) + at
        columns = np.flatnonzero(np.isin(item.ids, PADS)) + at
        taken = 0
        for values, grid in item.seen:
            merged = len(values) // 4
            cells = columns[taken : taken + merged]
            taken += merged
            stacks.setdefault(grid, []).append((values, np.stack([np.full(merged, row), cells])))
        assert taken == len(columns)
    batch.pictures = [
        (torch.from_numpy(np.stack([values for values, _ in stack])), grid) for grid, stack in stacks.items()
    ]
    cells = np.concatenate([place for stack in stacks.values() for _, place in stack], axis=1)
    batch.pads = torch.from_numpy(cells[0]), torch.from_numpy(cells[1])


def fill(ids: Tensor, segments: Tensor, weight: Tensor, at: int, item: Encoded, number: int) -> None:
    """Write one conversation into a row. A target weighs 1 / sqrt(targets of its conversation)."""
    n = len(item.ids)
    ids[at : at + n] = torch.tensor(item.ids)
    segments[at : at + n] = number
    target = torch.tensor(item.target, dtype=torch.float)
    weight[at : at + n - 1] = target[1:] / target.sum() ** 0.5


def short_batch(tokenizer: Tokenizer, rng: Random, mix: int) -> Batch:
    rows, length = SHORT
    items, total = [], 0
    while total < rows * length:
        item = encode(tokenizer, short_task(rng, mix))
        if len(item.ids) <= length:
            items.append(item)
            total += len(item.ids)
    return pack(items, rows, length)[0]


def sight_batch(tokenizer: Tokenizer, rng: Random, mix: int) -> Batch:
    """Questions about pictures and clips."""
    rows, length = SHORT
    items, total = [], 0
    while total < rows * length:
        items.append(encode(tokenizer, sight(rng, mix)))
        total += len(items[-1].ids)
    return pack(items, rows, length)[0]


def joint_batch(tokenizer: Tokenizer, seed: int, step: int, worker: int, mix: int) -> Batch:
    """A worker's batch of a step of the training with pictures."""
    rng = Random(f"{seed}/joint/{step}/{worker}")
    cycle = {2: LATE, 4: LAST, 5: EYES}.get(mix, JOINT)
    match cycle[step % len(cycle)]:
        case "sight":
            return sight_batch(tokenizer, rng, mix)
        case "short":
            return short_batch(tokenizer, rng, 3 + (0, 1, 2, 2, 3)[mix])
        case "tool":
            return tool_batch(tokenizer, rng, wide=2)
    return long_batch(tokenizer, rng)


def long_batch(tokenizer: Tokenizer, rng: Random) -> Batch:
    """Long conversations, one to a row, and short ones in the gaps."""
    rows, length = LONG
    long = [encode(tokenizer, long_task(rng, length)) for _ in range(rows)]
    long = [item for item in long if len(item.ids) <= length]
    gap = rows * length - sum(len(item.ids) for item in long)
    short = []
    while gap > 0:
        short.append(encode(tokenizer, short_task(rng)))
        gap -= len(short[-1].ids)
    return pack(long + short, rows, length)[0]


def tool_batch(tokenizer: Tokenizer, rng: Random, wide: int) -> Batch:
    groups = []
    while len(groups) < PREFIXES:
        items = [encode(tokenizer, task) for task in tool_tasks(rng, CONTINUATIONS, wide)]
        if system_prefix(tokenizer, items[0].ids) <= PREFIX:
            groups.append(items)
    return prefixed(tokenizer, groups, CONTINUATION)


def prefixed(tokenizer: Tokenizer, groups: Sequence[Sequence[Encoded]], length: int) -> Batch:
    """Each group shares its system turn (padded on the left); continuations too long for a row stay empty."""
    count = len(groups[0])
    prefix = torch.zeros(len(groups), PREFIX, dtype=torch.long)
    before = torch.zeros_like(prefix)
    ids = torch.zeros(len(groups) * count, length, dtype=torch.long)
    segments = torch.full_like(ids, 2)
    weight = torch.zeros(ids.shape)
    for group, items in enumerate(groups):
        cut = system_prefix(tokenizer, items[0].ids)
        prefix[group, PREFIX - cut :] = torch.tensor(items[0].ids[:cut])
        before[group, PREFIX - cut :] = 1
        for place, item in enumerate(items):
            assert item.ids[:cut] == items[0].ids[:cut]
            if len(item.ids) - cut <= length:
                row = group * count + place
                fill(ids[row], segments[row], weight[row], 0, Encoded(item.ids[cut:], item.target[cut:]), 1)
    return Batch(ids, segments, weight, (prefix, before))


def batch_at(tokenizer: Tokenizer, seed: int, step: int, worker: int, long: bool, mix: int) -> Batch:
    """A worker's batch of a step: a function of these numbers and of the phase: are long rows on, and which mix."""
    rng = Random(f"{seed}/{step}/{worker}")
    tool_every, long_every = EVERY[min(mix, 2)]
    if long and step % long_every == long_every - 1:
        return long_batch(tokenizer, rng)
    if step % tool_every == 1:
        return tool_batch(tokenizer, rng, wide=max(mix - 1, 0))
    return short_batch(tokenizer, rng, mix)


def test_batches(tokenizer: Tokenizer, tasks: Sequence[Task]) -> Iterator[tuple[Batch, list[list[int]]]]:
    """All tasks in rows, longest first, with the indices of the tasks of each row."""
    items = sorted(
        ((encode(tokenizer, task), index) for index, task in enumerate(tasks)), key=lambda pair: -len(pair[0].ids)
    )
    index_of = {id(item): index for item, index in items}
    waiting = [item for item, _ in items]
    while waiting:
        length = next((n for n in (256, 640, 1024) if len(waiting[0].ids) <= n), -(-len(waiting[0].ids) // 64) * 64)
        batch, content = pack(waiting, max(1, 3072 // length), length)
        used = {id(item) for row in content for item in row}
        waiting = [item for item in waiting if id(item) not in used]
        yield batch, [[index_of[id(item)] for item in row] for row in content]
