"""`--session` and `qwen35 sessions`, as the shell runs them, a killed process included."""

import io
import json
import signal
import subprocess
import sys
import time

import pytest

from qwen35_local.config import Settings


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("QWEN35_DATA", str(tmp_path))
    assert Settings.resolve().data == tmp_path
    return tmp_path / "sessions"


COMMON = ("--max-tokens", "6", "--no-think", "--temperature", "0")


def cached(result) -> tuple[int, int]:
    done = json.loads(result.out.splitlines()[-1])
    return done["usage"]["prompt_tokens"], done["usage"]["cached_tokens"]


def test_run_goes_on_where_it_was(qwen35, pristine, home, monkeypatch):
    model = ("--model", str(pristine))
    first = qwen35("run", "hello", "--session", "notes", *model, *COMMON, "--json")
    assert cached(first)[1] == 0
    second = qwen35("run", "and now?", "--session", "notes", *model, *COMMON, "--json")
    prompt, known = cached(second)
    assert prompt > 2 * cached(first)[0] - 10
    assert 0 < known < prompt
    monkeypatch.setattr(sys, "stdin", io.StringIO("so?\n/quit\n"))
    lines = qwen35("chat", "--session", "notes", *model, *COMMON)
    assert "notes: 4 messages" in lines.err
    listed = qwen35("sessions", "list")
    assert "notes" in listed.out
    assert "6 messages" in listed.out
    (stored,) = json.loads(qwen35("sessions", "list", "--json").out)["sessions"]
    assert stored["turns"] == 6
    assert stored["model"] == "tiny"
    assert stored["nbytes"] == sum((home / f"notes.{end}").stat().st_size for end in ("json", "state"))
    other = qwen35("run", "x", "--session", "notes", "--system", "Be brief.", *model, *COMMON)
    assert other.status == 2
    assert "without that system message" in other.err


def test_a_damaged_state_is_refused_and_can_be_forgotten(qwen35, pristine, home):
    model = ("--model", str(pristine))
    qwen35("run", "hello", "--session", "notes", *model, *COMMON)
    state = home / "notes.state"
    state.write_bytes(state.read_bytes()[:-10])
    refused = qwen35("run", "and?", "--session", "notes", *model, *COMMON)
    assert refused.status == 2
    assert "is cut" in refused.err
    assert "qwen35 sessions rm --state" in refused.err
    assert "is cut" in qwen35("sessions", "list").out
    assert qwen35("sessions", "rm", "notes", "--state").status == 0
    again = qwen35("run", "and?", "--session", "notes", *model, *COMMON, "--json")
    assert cached(again)[1] == 0
    assert cached(again)[0] > 20, "what was said is still there"


def test_sessions_are_removed(qwen35, pristine, home, monkeypatch):
    qwen35("run", "hello", "--session", "notes", "--model", str(pristine), *COMMON)
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    assert "use --yes" in qwen35("sessions", "rm", "notes").err
    assert "no session 'nots'" in qwen35("sessions", "rm", "nots", "--yes").err
    assert qwen35("sessions", "rm", "notes", "--yes").status == 0
    assert "no sessions in" in qwen35("sessions", "list").out


def test_a_killed_conversation_is_there_up_to_its_last_answer(qwen35, pristine, home):
    """SIGKILL in the middle of an answer: what was said before it is on disk, with a state that can be gone on with."""
    command = ["chat", "--session", "notes", "--model", str(pristine), "--max-tokens", "3", "--no-think", "--plain"]
    process = subprocess.Popen(
        [sys.executable, "-m", "qwen35_local.cli", *command],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    assert process.stdin is not None
    assert process.stdout is not None
    with process.stdin, process.stdout:
        process.stdin.write("hello\n")
        process.stdin.flush()
        deadline = time.monotonic() + 120
        while not (home / "notes.state").exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        process.stdin.write("another one\n" * 3)
        process.stdin.flush()
        process.send_signal(signal.SIGKILL)
        process.wait()
    listed = json.loads(qwen35("sessions", "list", "--json").out)["sessions"][0]
    assert listed["problem"] == ""
    assert listed["turns"] >= 2
    result = qwen35("run", "and now?", "--session", "notes", "--model", str(pristine), *COMMON, "--json")
    assert cached(result)[1] > 0
