"""Pictures by kitty's graphics and by sixel, and half blocks where the terminal has neither."""

import io
import sys

import pytest
from driven import png

from qwen35_local.config import Settings
from tui.chat.media import Media
from tui.vision.painter import Painter, ask_terminal

MEDIA = Media("x", "image", png((64, 32)), (64, 32))


def test_kitty_sends_the_picture_once_and_draws_placeholders(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "__stdout__", io.StringIO())
    sent: list[str] = []
    painter = Painter("truecolor", "kitty", sent.append)
    lines = painter.thumbnail(MEDIA, 20, 8)
    assert painter.thumbnail(MEDIA, 20, 8) is lines
    assert len(sent) == 1
    assert sent[0].startswith("\x1b_G")
    assert "U=1" in sent[0]
    assert [line.cell_length for line in lines] == [20] * 5
    assert all(line.text.count("\U0010eeee") == 20 for line in lines)
    assert sys.__stdout__.getvalue() == ""  # type: ignore[union-attr]
    painter.close()
    assert "a=d" in sent[-1]


def test_sixel_is_drawn_from_the_last_line_and_never_where_it_could_be_cut():
    painter = Painter("truecolor", "sixel", lambda text: None)
    lines = painter.thumbnail(MEDIA, 20, 8)
    assert [line.cell_length for line in lines] == [20] * 5
    assert [("\x1bP" in line.text) for line in lines] == [False] * 4 + [True]
    assert "\x1b[4A\x1b[20D\x1bP" in lines[-1].text
    assert all("▀" in line.text for line in painter.thumbnail(MEDIA, 20, 8, scrolls=True))


@pytest.mark.parametrize("depth", ["256", "16"])
def test_graphics_need_all_colours_and_a_terminal(depth):
    assert Painter(depth, "kitty", lambda text: None).graphics == "cells"
    assert Painter("truecolor", "kitty", None).graphics == "cells"


def test_it_keeps_a_bounded_number():
    painter = Painter()
    for width in range(1, 200):
        painter.thumbnail(MEDIA, width, 4)
    assert len(painter._drawn) == 64


@pytest.mark.parametrize(
    ("env", "said"),
    [
        ({"TERM": "xterm-kitty"}, "kitty"),
        ({"TERM_PROGRAM": "iTerm.app", "TERM": "xterm-256color"}, "sixel"),
        ({"TERM": "xterm-256color"}, "half cells"),
        ({"TERM": "tmux-256color", "TERM_PROGRAM": "tmux", "KITTY_WINDOW_ID": "1", "TMUX": "/x"}, "half cells"),
    ],
)
def test_what_the_environment_says(env: dict[str, str], said: str):
    assert Settings.resolve(env).graphics == said


def test_nothing_is_asked_of_an_ordinary_terminal():
    assert ask_terminal("half cells") == "cells"
