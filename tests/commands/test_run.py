"""`qwen35 run`, `chat` and `info` on the tiny random model: what goes where, not what it says."""

import io
import json
import os
import pty
import signal
import subprocess
import sys
import time

import pytest

from qwen35_local.commands.terminal import Printer, printable
from qwen35_local.errors import UsageError
from qwen35_local.events import Done, Progress, Reasoning, Stats, Text, ToolCall, Usage

DONE = Done("stop", Usage(5, 3), Stats(1.0, 2.0, 0.1, 1.0))


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def shown(events: list, terminal: bool, color: bool = False) -> tuple[str, str]:
    kind = Terminal if terminal else io.StringIO
    out, err = kind(), kind()
    Printer(out, err, color).show([*events, DONE])
    return out.getvalue(), err.getvalue()


def test_answers_go_out_and_statistics_aside(qwen35, pristine):
    result = qwen35("run", "hello", "--model", str(pristine), "--max-tokens", "4", "--seed", "1", "--no-think")
    assert result.status == 0
    assert "tok/s" in result.err
    assert "tok/s" not in result.out
    again = qwen35(
        "run", "hello", "--model", str(pristine), "--max-tokens", "4", "--seed", "1", "--no-think", "--quiet"
    )
    assert again.out == result.out
    assert again.err == ""


def test_json_is_one_event_a_line(qwen35, pristine):
    result = qwen35("run", "hello", "--model", str(pristine), "--max-tokens", "4", "--json")
    events = [json.loads(line) for line in result.out.splitlines()]
    assert [event["event"] for event in events][-1] == "done"
    assert events[0]["event"] == "progress"
    assert events[-1]["usage"]["completion_tokens"] <= 4
    assert events[-1]["stats"]["peak_memory"] > 0


def test_the_prompt_comes_from_standard_input(qwen35, pristine, monkeypatch):
    common = ("--model", str(pristine), "--max-tokens", "3", "--seed", "1", "--quiet", "--no-think")
    typed = qwen35("run", "hello there", *common)
    for argument in (["-"], []):
        monkeypatch.setattr(sys, "stdin", io.StringIO("hello there"))
        assert qwen35("run", *argument, *common).out == typed.out
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"\xff\xfe"), encoding="utf-8"))
    result = qwen35("run", "-", *common)
    assert result.status == 2
    assert "not UTF-8 text: bad byte at 0" in result.err


def test_thinking_is_dimmed_on_a_terminal_and_left_out_of_pipes():
    events = [Progress("prefill", 1, 2), Reasoning("let me"), Reasoning(" see"), Text("42")]
    assert shown(events, terminal=False) == ("42\n", "")
    out, err = shown(events, terminal=True, color=True)
    assert out == "\x1b[2mlet me see\x1b[0m\n\n42\n"
    assert "reading the prompt 50 %" in err
    assert shown(events, terminal=True, color=False)[0] == "let me see\n\n42\n"


def test_the_terminal_is_left_in_order_after_an_error():
    out = Terminal()

    def events():
        yield Reasoning("hm")
        raise UsageError("no")

    with pytest.raises(UsageError):
        Printer(out, Terminal(), color=True).show(events())
    assert out.getvalue().endswith("\x1b[0m\n\n")


def test_models_cannot_speak_to_the_terminal():
    out, _ = shown([Text("a\x1b]0;title\x07b\x9b2Jc\r\n\td\x7f")], terminal=True)
    assert out == "a␛]0;title␇b\ufffd2Jc␍\n\td␡\n"
    assert shown([Text("a\x1bb")], terminal=False)[0] == "a\x1bb\n"  # a pipe gets the answer as it is
    assert printable("naïve 👩‍👩‍👧 שלום") == "naïve 👩‍👩‍👧 שלום"
    out, _ = shown([ToolCall("f", {"a": "\x1b[2J"})], terminal=False)
    assert "\x1b" not in out


def test_a_conversation_in_lines(qwen35, pristine, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO("hello\n\n/think\nagain\n/stats\n/new\n/help\n/quit\nnever\n"))
    result = qwen35("chat", "--model", str(pristine), "--max-tokens", "3")
    assert result.status == 0
    assert "thinking is off" in result.err
    assert "first token" in result.err
    assert "/new starts over" in result.out


def test_a_full_context_does_not_end_the_conversation(qwen35, pristine, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO("word " * 50 + "\n/help\n"))
    result = qwen35("chat", "--model", str(pristine), "--context", "40")
    assert result.status == 0
    assert "and the context is 40" in result.err
    assert "/new starts over" in result.out


def test_info_reads_headers_alone(qwen35, pristine, tmp_path):
    out = qwen35("info", str(pristine)).out
    assert "8 (6 Gated DeltaNet, 2 attention)" in out
    facts = json.loads(qwen35("info", str(pristine), "--json").out)
    assert facts["experts"] == "16, 4 per token"
    assert facts["mtp"] is True
    assert facts["vision"] is False


def test_info_tells_of_the_tower(qwen35):
    lines = dict(line.split(maxsplit=1) for line in qwen35("info").out.splitlines())
    assert (lines["vision"], lines["mtp"]) == ("yes", "yes")
    assert lines["size"].endswith(" MB in 1 file")
    assert lines["tower"].endswith(" channels")


def test_version(qwen35):
    assert qwen35("--version").out.startswith("qwen35 0.")


def start(*argv: str, **kwargs) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, "-m", "qwen35_local.cli", *argv], text=True, **kwargs)


def test_ctrl_c_ends_quietly(pristine):
    process = start("run", "hello", "--model", str(pristine), "--no-think", "--stop", "never said", "--json",
                    stdout=subprocess.PIPE, stderr=subprocess.PIPE)  # fmt: skip
    assert process.stdout is not None
    process.stdout.readline()
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode in (130, 0)  # 0 if the answer was over first
    assert "Traceback" not in err


def test_a_reader_that_leaves_is_no_error(pristine):
    process = start("run", "hello", "--model", str(pristine), "--json", "--max-tokens", "200",
                    stdout=subprocess.PIPE, stderr=subprocess.PIPE)  # fmt: skip
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.readline()
    process.stdout.close()
    with process.stderr as errors:
        assert errors.read() == ""
    assert process.wait(timeout=30) == 0


def test_on_a_real_terminal(pristine):
    """A pseudo-terminal: thinking is dimmed, and switched back before the end."""
    parent, child = pty.openpty()
    process = start("run", "hello", "--model", str(pristine), "--max-tokens", "5",
                    stdin=child, stdout=child, stderr=child, env={**os.environ, "TERM": "xterm"})  # fmt: skip
    os.close(child)
    seen, limit = b"", time.monotonic() + 60
    while time.monotonic() < limit:
        try:
            data = os.read(parent, 4096)
        except OSError:  # the other side is closed
            break
        if not data:
            break
        seen += data
    os.close(parent)
    assert process.wait(timeout=30) == 0
    assert b"\x1b[2m" in seen
    assert seen.index(b"\x1b[0m") > seen.index(b"\x1b[2m")
    assert b"tok/s" in seen
