"""Markdown -> blocks that can be rendered one by one, also while the text still grows.

A block is a top-level construct of the source: a paragraph, a list item, a fence, a table. While an answer grows only
the last block can change, so each step parses and draws that one alone.
"""

from dataclasses import dataclass, replace
from functools import cache
from typing import Literal

from markdown_it import MarkdownIt
from markdown_it.token import Token

Kind = Literal["prose", "code", "table"]
FENCE_CHUNK = 64  # lines: a fence is frozen in parts this long, so that a long program costs no more than a short one


@dataclass(frozen=True, slots=True)
class Block:
    """`source` is its Markdown, for code the program itself. `gap`: a blank line comes before it.

    `continues`: the next part of the fence before it.
    """

    kind: Kind
    source: str
    gap: bool = True
    lang: str = ""
    continues: bool = False


@cache
def parser() -> MarkdownIt:
    # No raw HTML (a model's tags are text) and no link rewriting; tables and strikethrough are what models write.
    return MarkdownIt("commonmark", {"html": False}).enable(["table", "strikethrough"])


def split(source: str) -> list[tuple[Block, int]]:
    """The blocks of `source`, each with the line (from 0) on which it starts."""
    lines = source.split("\n")
    starts: list[tuple[int, int, Token, bool]] = []  # first line, end line, token, is a list item
    for token in parser().parse(source):
        if token.map is None or token.nesting < 0:
            continue
        if token.level == 0 and token.type not in ("bullet_list_open", "ordered_list_open"):
            starts.append((token.map[0], token.map[1], token, False))
        elif token.type == "list_item_open" and token.level == 1:
            starts.append((token.map[0], token.map[1], token, True))
    blocks: list[tuple[Block, int]] = []
    item_before = False
    for first, end, token, item in starts:
        blank_before = first > 0 and not lines[first - 1].strip()
        gap = bool(blocks) and (blank_before or not (item and item_before))
        item_before = item
        if token.type in ("fence", "code_block"):
            lang = token.info.split()[0] if token.info.split() else ""
            blocks.append((Block("code", token.content.removesuffix("\n"), gap, lang), first))
        else:
            kind: Kind = "table" if token.type == "table_open" else "prose"
            blocks.append((Block(kind, "\n".join(lines[first:end]).rstrip("\n"), gap), first))
    return blocks


class Growing:
    """The blocks of a text that arrives in pieces. The first `frozen` of `blocks` will not change."""

    def __init__(self) -> None:
        self.blocks: list[Block] = []
        self.frozen = 0
        self._tail = ""
        self._tail_gap = False  # a blank line came before the tail
        self._fence = False  # the tail is the rest of a fence of which a part is frozen

    def feed(self, text: str) -> None:
        """Add a piece; costs what its last block costs, whatever came before."""
        if not text:
            return
        self._tail += text
        found = split(self._tail)
        del self.blocks[self.frozen :]
        shaped = [self._head(block) if at == 0 else block for at, (block, _) in enumerate(found)]
        if len(found) > 1:
            self.blocks += shaped[:-1]
            self.frozen = len(self.blocks)
            self._tail = "\n".join(self._tail.split("\n")[found[-1][1] :])
            self._tail_gap, self._fence = shaped[-1].gap, False
            shaped = shaped[-1:]
        if shaped and shaped[-1].kind == "code":
            shaped = self._chunk(shaped[-1])
        self.blocks += shaped

    def _head(self, block: Block) -> Block:
        """The first block of the tail, with what is known of the text before it."""
        continues = self._fence and block.kind == "code"
        return replace(block, gap=self._tail_gap and not continues, continues=continues)

    def _chunk(self, block: Block) -> list[Block]:
        """Freeze whole chunks of a fence that is still open; the tail becomes its opening line and the rest."""
        opening, _, body = self._tail.partition("\n")
        mark = opening.lstrip()[:3]
        while mark in ("```", "~~~") and body.count("\n") > FENCE_CHUNK + 1:
            lines = body.split("\n")
            if any(line.strip().startswith(mark) for line in lines):
                break
            part = "\n".join(lines[:FENCE_CHUNK])
            self.blocks.append(Block("code", part, block.gap, block.lang, block.continues))
            self.frozen = len(self.blocks)
            body = "\n".join(lines[FENCE_CHUNK:])
            self._tail, self._fence = f"{opening}\n{body}", True
            block = Block("code", body.removesuffix("\n"), False, block.lang, True)
        return [block]


def blocks_of(source: str) -> list[Block]:
    """All blocks of a finished text."""
    return [block for block, _ in split(source)]
