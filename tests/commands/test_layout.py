"""Labelled lines, whatever the terminal."""

from qwen35_local.commands.layout import labelled

ROWS = [("disk", "63.3 GB free in /home/me/models; read at 0.93 GB/s"), ("hub", "https://huggingface.co")]


def test_a_pipe_gets_one_line_each():
    assert list(labelled(ROWS)) == [
        "disk  63.3 GB free in /home/me/models; read at 0.93 GB/s",
        "hub   https://huggingface.co",
    ]


def test_a_terminal_gets_no_line_longer_than_it_is():
    assert list(labelled(ROWS, 46)) == [
        "disk  63.3 GB free in /home/me/models; read at",
        "      0.93 GB/s",
        "hub   https://huggingface.co",
    ]


def test_what_cannot_be_broken_stays_whole_where_it_fits():
    (line, *_) = labelled([("to", "/a-directory/with-hyphens/in-its/name-that-is/long-er")], 60)
    assert line == "to  /a-directory/with-hyphens/in-its/name-that-is/long-er"
