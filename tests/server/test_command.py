"""`qwen35 serve` as a process: how it starts, and how it ends in the middle of an answer."""

import json
import re
import signal
import subprocess
import sys

import httpx
import pytest


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_an_answer_in_order(number):
    command = [sys.executable, "-m", "qwen35_local.cli", "serve", "--port", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        url = re.findall(r"http://127.0.0.1:[0-9]+", process.stderr.readline())[0]
        while httpx.get(url + "/health").status_code == 503:
            pass
        body = {"messages": [{"role": "user", "content": "Hi"}], "stream": True, "reasoning_effort": "none"}
        body["response_format"] = {"type": "regex", "pattern": "(a ){30000}"}  # it cannot end by itself
        with httpx.stream("POST", url + "/v1/chat/completions", json=body, timeout=60) as answer:
            lines = answer.iter_lines()
            next(lines)
            process.send_signal(number)
            said = [line for line in lines if line.startswith("data: ")]
        assert "error" in json.loads(said[-1][6:])
        assert process.wait(30) == (0 if number == signal.SIGTERM else 130)


def test_a_model_that_is_not_there_is_one_sentence():
    command = [sys.executable, "-m", "qwen35_local.cli", "serve", "--port", "0", "--model", "/nowhere"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 2
    assert "Traceback" not in ended.stderr
    assert "/nowhere" in ended.stderr
