"""`qwen35 serve` as a process: how it starts, and how it ends in the middle of an answer."""

import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import pytest

ENDLESS = {  # it cannot end by itself
    "messages": [{"role": "user", "content": "Hi"}],
    "stream": True,
    "reasoning_effort": "none",
    "response_format": {"type": "regex", "pattern": "(a ){30000}"},
}


@contextmanager
def serving() -> Iterator[tuple[subprocess.Popen, str]]:
    """The command on the miniature, ready, and its address."""
    command = [sys.executable, "-m", "qwen35_local.cli", "serve", "--port", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            url = re.findall(r"http://127.0.0.1:[0-9]+", process.stderr.readline())[0]
            while httpx.get(url + "/health").status_code == 503:
                time.sleep(0.05)
            yield process, url
        finally:
            process.kill()


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_an_answer_in_order(number):
    with serving() as (process, url):
        with httpx.stream("POST", url + "/v1/chat/completions", json=ENDLESS, timeout=60) as answer:
            lines = answer.iter_lines()
            next(lines)
            process.send_signal(number)
            said = [line for line in lines if line.startswith("data: ")]
        assert "error" in json.loads(said[-1][6:])
        assert process.wait(30) == (0 if number == signal.SIGTERM else 130)


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [1, 25])  # longer than any pause that the server allows a client
def test_a_machine_that_sleeps_goes_on_where_it_was(seconds):
    """A stopped process is what a closed lid makes of it: afterwards the clock has jumped, and the stream goes on."""
    body = ENDLESS | {"response_format": {"type": "regex", "pattern": "(a ){400}"}}
    with serving() as (process, url):
        whole = httpx.post(url + "/v1/chat/completions", json=body | {"stream": False}, timeout=120).json()
        with httpx.stream("POST", url + "/v1/chat/completions", json=body, timeout=60) as answer:
            lines = (json.loads(line[6:]) for line in answer.iter_lines() if line.startswith("data: {"))
            said = [next(lines) for _ in range(20)]
            process.send_signal(signal.SIGSTOP)
            time.sleep(seconds)
            process.send_signal(signal.SIGCONT)
            said += lines
        assert "".join(chunk["choices"][0]["delta"].get("content") or "" for chunk in said) == "a " * 400
        assert said[-1]["choices"][0]["finish_reason"] == whole["choices"][0]["finish_reason"] == "stop"
        assert httpx.get(url + "/health").status_code == 200


def test_a_model_that_is_not_there_is_one_sentence():
    command = [sys.executable, "-m", "qwen35_local.cli", "serve", "--port", "0", "--model", "/nowhere"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 2
    assert "Traceback" not in ended.stderr
    assert "/nowhere" in ended.stderr
