"""Markdown in cells: blocks while the text grows, tables, code, lists, and nothing a terminal could act on."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tui.palette import PLAIN
from tui.render.blocks import FENCE_CHUNK, Growing, blocks_of
from tui.render.code import code_strips
from tui.render.column import Column
from tui.render.pieces import Markdown, Words
from tui.render.prose import prose_strips
from tui.render.table import table_strips
from tui.safe import one_line, printable

SAMPLE = """# Title

Some *text* with `code` and [a link](https://example.org).

1. one
2. two

   more of two
3. three
   - inner

> quoted

| a | b |
|---|--:|
| 1 | 22 |

```py
x = 1
```
end
"""


def lines(source: str, width: int = 40) -> list[str]:
    return [strip.text.rstrip() for strip in prose_strips(source, width, PLAIN)]


def grown(text: str, step: int) -> Growing:
    growing = Growing()
    for at in range(0, len(text), step):
        growing.feed(text[at : at + step])
    return growing


@pytest.mark.parametrize("step", [1, 2, 3, 7, 1000])
def test_growing_ends_where_the_whole_is(step: int):
    assert grown(SAMPLE, step).blocks == blocks_of(SAMPLE)


@given(st.lists(st.sampled_from([*"ab*`_#>-1.|[]()!", "\n", "\n\n", "```", "- ", "  ", "| a |"]), max_size=40))
@settings(max_examples=150, deadline=None)
def test_no_text_is_lost_while_it_grows(parts: list[str]):
    text = "".join(parts)
    growing = grown(text, 1)
    letters = re.sub(r"[^ab]", "", "".join(block.source for block in growing.blocks))
    whole = re.sub(r"[^ab]", "", "".join(block.source for block in blocks_of(text)))
    assert len(letters) >= len(whole)


def test_long_fence_is_frozen_in_parts_and_joins_to_the_same_code():
    code = "\n".join(f"line {n}" for n in range(5 * FENCE_CHUNK))
    growing = grown(f"```py\n{code}", 50)
    assert growing.frozen >= 3
    assert "\n".join(block.source for block in growing.blocks) == code
    assert [block.continues for block in growing.blocks] == [False] + [True] * (len(growing.blocks) - 1)
    growing.feed("\n```\n\nAfter.")
    assert growing.blocks[-1].source == "After."
    assert growing.blocks[-1].kind == "prose"


def test_lists_quotes_and_headings():
    assert lines("1. one\n2. two\n   - in") == ["1. one", "2. two", "   • in"]
    assert lines("> a\n> b") == ["▎ a", "▎ b"]
    assert lines("# T") == ["T", "━"]
    assert lines("3. three") == ["3. three"]
    assert lines("- a long item that wraps", 14) == ["• a long item", "  that wraps"]


def test_a_link_shows_where_it_leads():
    assert lines("[safe](https://evil.example)") == ["safe (https://evil.example)"]
    assert lines("<https://a.example>") == ["https://a.example"]


def test_table_keeps_its_width_and_alignment():
    text = [strip.text for strip in table_strips("| a | b |\n|---|--:|\n| 1 | 22222 |", PLAIN)]
    assert text == ["a │     b", "──┼──────", "1 │ 22222"]


def test_table_of_200_columns_is_drawn_and_scrolls():
    row = "|" + "|".join(f"c{n}" for n in range(200)) + "|"
    source = f"{row}\n|{'---|' * 200}\n{row}"
    column = Column(width=60)
    column.replace(0, [(1, Markdown(block)) for block in blocks_of(source)])
    column.measure(0, 0)
    assert column.rows[0].extent > 600
    before = column.line(0)
    assert column.shift(0, 100)
    assert column.line(0) != before
    assert not column.shift(0, -1000) or column.rows[0].shift == 0


def test_code_is_highlighted_and_keeps_every_character():
    strips = code_strips("def f():\n\treturn 'ü'", "python", 30, PLAIN)
    assert [strip.text.rstrip() for strip in strips] == [" def f():", "     return 'ü'"]
    assert all(strip.cell_length >= 30 for strip in strips)


@given(st.text(alphabet=st.characters(codec="utf-8"), max_size=200))
@settings(max_examples=100, deadline=None)
def test_no_control_character_is_ever_drawn(text: str):
    safe = printable(text)
    drawn = [strip.text for block in blocks_of(safe) for strip in Markdown(block).strips(40, PLAIN)]
    drawn += [strip.text for strip in Words(safe).strips(40, PLAIN)]
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e]", "".join(drawn))
    assert not any("\x1b" in line for line in drawn)


def test_printable_makes_controls_visible():
    assert printable("a\x1b[31mb\x9b1m\x07\r\nc\x7f") == "a␛[31mb\ufffd1m␇\nc␡"
    assert one_line("a\n\n b\x1b", 10) == "a b␛"
    assert one_line("abcdef", 4) == "abc…"


@given(st.text(max_size=400), st.integers(8, 60))
@settings(max_examples=60, deadline=None)
def test_prose_stays_within_its_width(text: str, width: int):
    for block in blocks_of(printable(text)):
        if block.kind == "prose":
            assert all(strip.cell_length <= width + 2 for strip in prose_strips(block.source, width, PLAIN))


def test_column_measures_only_where_one_looks():
    column = Column(width=40)
    column.replace(0, [(n, Words(f"paragraph {n} " * 20, gap=True)) for n in range(500)])
    column.measure(490, 499)
    assert sum(row.measured for row in column.rows) == 10
    assert column.top(500) == column.height
    assert column.at(column.top(250)) == 250


def test_column_keeps_unchanged_rows():
    column = Column(width=40)
    column.replace(0, [(1, Words("a")), (1, Words("b"))])
    first = column.rows[0]
    column.replace(0, [(1, Words("a")), (1, Words("bc"))])
    assert column.rows[0] is first
    assert column.rows[1].piece.plain == "bc"
