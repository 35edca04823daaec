"""What is drawn while bytes come, on a terminal and in a log."""

import io
import itertools
import time

import pytest

from qwen35_local.hub.progress import Meter, duration, size


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True

    @property
    def shown(self) -> str:
        """The last line, as a terminal would have it."""
        return self.getvalue().rsplit("\n", 1)[-1].rsplit("\r", 1)[-1].removesuffix("\x1b[K")


@pytest.fixture
def seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    """A second passes with every look at the clock."""
    clock = itertools.count(100.0)
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))


def test_one_line_with_rate_and_time_left(seconds, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    out = Terminal()
    meter = Meter(100_000_000, 5, "fetched", out)
    meter.had(20_000_000)
    meter.file_done()
    for _ in range(8):
        meter.add(1_000_000)
    shown = out.shown
    assert shown.startswith("fetched 28 %: 28.0 of 100.0 MB, 1 of 5 files, ")
    assert shown.endswith(" left")
    assert "\n" not in out.getvalue()
    meter.notice("a notice")
    assert out.getvalue().endswith("\x1b[Ka notice\n")
    meter.add(1)
    meter.close()
    meter.add(1)  # of a thread that has not heard
    assert out.shown == ""


def test_a_narrow_terminal_is_not_wrapped(seconds, monkeypatch):
    monkeypatch.setenv("COLUMNS", "30")
    out = Terminal()
    Meter(100_000_000, 5, "fetched", out).add(1_000_000)
    assert out.shown == "fetched 1 %: 1.0 of 100.0 MB"


def test_the_full_size_fits_80_columns(seconds, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    out = Terminal()
    meter = Meter(807_000_000_000, 107, "fetched", out)
    meter.had(100_650_000_000)
    meter.finished = 11
    for _ in range(4):
        meter.add(112_300_000)
    assert out.shown.startswith("fetched 12 %: 101.1 of 807.0 GB, 11 of 107 files, ")
    assert out.shown.endswith(" left")


def test_the_first_moments_tell_no_rate(monkeypatch):
    monkeypatch.setattr(time, "monotonic", lambda: 100.0)
    out = Terminal()
    Meter(2_000_000, 1, "hashed", out).add(1_000)
    assert out.shown == "hashed 0 %: 1.0 kB of 2.0 MB, 0 of 1 file"


def test_a_log_gets_a_plain_line_now_and_then(seconds):
    out = io.StringIO()
    meter = Meter(1000, 1, "converted", out)
    for _ in range(100):
        meter.add(10)
    meter.close()
    lines = out.getvalue().splitlines()
    assert 3 < len(lines) < 20
    assert all(line.startswith("converted ") for line in lines)
    assert not set("\r\x1b") & set(out.getvalue())


def test_quiet_says_nothing():
    out = Terminal()
    meter = Meter(1, 1, "fetched", out, quiet=True)
    meter.add(1)
    meter.notice("a notice")
    meter.close()
    assert (out.getvalue(), meter.done) == ("", 1)


def test_numbers_as_people_say_them():
    assert [size(n) for n in (0, 999, 1500, 210.6e9, 2e12)] == ["0 bytes", "999 bytes", "1.5 kB", "210.6 GB", "2.0 TB"]
    assert [duration(s) for s in (5, 65, 7260)] == ["5 s", "1 min 05 s", "2 h 01 min"]
