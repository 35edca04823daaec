"""Help: keys as keyboards have them, on lines that fit the smallest common terminal."""

import pytest

from tui.app import ChatApp
from tui.keys import keys_of
from tui.palette import PLAIN
from tui.screens.chat import ChatScreen
from tui.screens.help import helping, shown
from tui.slash import COMMANDS
from tui.widgets.transcript import Transcript

ROOM = 67  # cells that a window leaves for text in a terminal of 80


@pytest.mark.parametrize(
    ("keys", "expected"),
    [("ctrl+o,f2", "Ctrl+O, F2"), ("down,j", "Down, j"), ("end,G", "End, G"), ("@", "@"), ("escape", "Esc")],
)
def test_keys_are_written_as_keyboards_have_them(keys: str, expected: str):
    assert shown(keys) == expected


def test_every_line_fits_80_cells():
    groups = {
        "Everywhere": keys_of([*ChatScreen.BINDINGS, *ChatApp.BINDINGS], {}),
        "In the conversation (Tab)": keys_of(Transcript.BINDINGS, {}),
    }
    lines = helping(PLAIN, groups).plain.split("\n")
    assert [line for line in lines if len(line) > ROOM] == []
    assert sum(line.lstrip().startswith("/") for line in lines) > len(COMMANDS)
