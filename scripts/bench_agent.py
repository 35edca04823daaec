"""An agent's conversation with our server and with mlx_lm.server: how many prompt tokens each reads again.

    python scripts/bench_agent.py [--quick] [--json FILE] [--model DIR] [--template FILE] [--peer PYTHON]

Ours twice: as the format wants it, without the thinking before a new question, and with `preserve_thinking`.

The same client, which sends no thinking back, talks with both over HTTP: questions, tool calls, long results. For every
request: the prompt's tokens, how many of them the server read, and how many were new to it in any case: those from the
first that is another than what it has read and said before. Both use a copy of the model with float32 activations,
which a CPU computes fastest. `--peer` is a Python that has mlx-lm (default: this one). It needs the chat template that
comes with the released model (`--template chat_template.jinja`, where the model has none): another one leaves tools and
thinking out, and compares nothing; so without it only ours is measured.
"""

import argparse
import json
import platform
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import mlx.core as mx

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT)]

from qwen35_local.checkpoint.locate import find_model  # noqa: E402
from scripts.context.agent import Body, Reply, converse, tools  # noqa: E402

REQUESTS, MOST = 20, 120


@contextmanager
def server(command: list[str]) -> Iterator[int]:
    """A port on which it answers."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [*command, "--port", str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=ROOT
    )
    try:
        deadline = time.monotonic() + 120
        while True:
            try:
                with socket.create_connection(("127.0.0.1", port), 1):
                    break
            except OSError:
                if process.poll() is not None or time.monotonic() > deadline:
                    raise SystemExit(f"{' '.join(command)} does not answer") from None
                time.sleep(0.2)
        yield port
    finally:
        process.terminate()
        process.wait()


def float32(source: Path, to: Path) -> Path:
    """A copy of a model directory whose plain tensors, scales and biases are float32."""
    shutil.copytree(source, to, ignore=shutil.ignore_patterns("*.safetensors", "*.py", "__pycache__"))
    for file in source.glob("*.safetensors"):
        tensors: Any = mx.load(str(file))
        wide = {n: x.astype(mx.float32) if x.dtype in (mx.bfloat16, mx.float16) else x for n, x in tensors.items()}
        mx.save_safetensors(str(to / file.name), wide, {"format": "mlx"})
    return to


def ask(port: int, model: str, messages: Body) -> tuple[Reply, float]:
    """The reply, and the seconds that it took."""
    body = {"model": model, "messages": messages, "tools": tools(), "temperature": 0, "max_tokens": MOST}
    status, began = 503, 0.0
    answer: Any = {}
    while status == 503:  # it may be loading still
        began = time.perf_counter()
        connection = HTTPConnection("127.0.0.1", port, timeout=600)
        try:
            connection.request("POST", "/v1/chat/completions", json.dumps(body), {"Content-Type": "application/json"})
            response = connection.getresponse()
            status, answer = response.status, json.loads(response.read())
        finally:
            connection.close()
        time.sleep(status == 503)
    if "choices" not in answer:
        raise SystemExit(f"the server refused: {answer}")
    usage, message = answer["usage"], answer["choices"][0]["message"]
    cached = (usage.get("prompt_tokens_details") or {}).get("cached_tokens", 0)
    timings = answer.get("timings") or {}
    said = usage["completion_tokens"] - 1  # the last is not read before the next request
    reply = Reply(message, usage["prompt_tokens"], cached, timings.get("reuse", ""), said, timings.get("differs"))
    return reply, time.perf_counter() - began


def conversation(port: int, model: str, requests: int) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    seconds: list[float] = []
    known = 0

    def asking(messages: Body) -> Reply:
        reply, took = ask(port, model, messages)
        seconds.append(took)
        return reply

    for asked, reply in converse(asking, requests):
        new = reply.prompt_tokens - (known if reply.differs is None else reply.differs)
        rows.append(
            {"asked": asked, "prompt": reply.prompt_tokens, "read": reply.read, "new": new, "s": seconds[-1],
             "why": reply.reason}
        )  # fmt: skip
        known = reply.prompt_tokens + reply.said
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--model", default="miniature")
    parser.add_argument("--template", type=Path, metavar="FILE", help="chat_template.jinja of the released model")
    parser.add_argument("--peer", default=sys.executable, metavar="PYTHON")
    args = parser.parse_args()
    scratch = tempfile.TemporaryDirectory()
    path = str(float32(find_model(args.model), Path(scratch.name) / "model"))
    serving = [sys.executable, "-m", "qwen35_local.cli", "serve", "--model", path]
    commands = {
        "qwen35 serve": (serving, Path(path).name),
        "qwen35 serve --preserve-thinking": ([*serving, "--preserve-thinking"], Path(path).name),
        "mlx_lm.server": ([args.peer, "-m", "mlx_lm", "server", "--model", path], path),
    }
    if args.template:
        shutil.copy(args.template, Path(path) / "chat_template.jinja")
    if not (Path(path) / "chat_template.jinja").exists():
        print("the model has no chat_template.jinja: mlx_lm.server is left out (see --template)")
        del commands["mlx_lm.server"]
    results = {}
    for name, (command, model) in commands.items():
        with server(command) as port:
            results[name] = conversation(port, model, 5 if args.quick else REQUESTS)
    for name, rows in results.items():
        print(f"{name}\n{'request':>8} {'after a':9} {'prompt':>7} {'read':>6} {'new':>6}  why")
        for number, row in enumerate(rows, 1):
            new = row["new"] if name.startswith("qwen35") else ""  # the other does not say from where on
            print(f"{number:>8} {row['asked']:9} {row['prompt']:>7} {row['read']:>6} {new:>6}  {row['why']}")
        read, prompt = (sum(row[key] for row in rows) for key in ("read", "prompt"))
        print(
            f"{name}: {read} of {prompt} prompt tokens read; {statistics.median(r['s'] for r in rows):.2f} s a request"
        )
        if name.startswith("qwen35"):
            print(f"at most {max(row['read'] - row['new'] for row in rows)} tokens more than what was new in a request")
    scratch.cleanup()
    if args.json:
        args.json.write_text(json.dumps({"machine": platform.platform(), "measured": results}, indent=1))


if __name__ == "__main__":
    main()
