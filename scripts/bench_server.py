"""What HTTP costs: our server against the same engine in-process, against mlx_lm.server, and with 8 clients at once.

    python scripts/bench_server.py [--quick] [--json FILE] [--peer PYTHON]

Each repeat times every way in turn. The overhead is (time through HTTP - time in-process) / tokens on a scripted
engine, whose tokens cost next to nothing. `--peer` is a Python that has mlx-lm; it serves the same checkpoint, the
miniature. Ratios above 1 mean that ours is faster.
"""

import argparse
import http.client
import json
import platform
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
MODEL = ROOT / "qwen35_local" / "miniature"
REPLY = " one two three four five six seven eight nine ten"


def scripted(tokens: int) -> Any:
    """The scripted engine with the miniature's tokenizer; every answer has about `tokens` tokens."""
    import itertools

    from qwen35_local.backends.scripted import ScriptedEngine
    from qwen35_local.chat.tokenizer import Tokenizer

    tokenizer = Tokenizer.from_dir(MODEL)
    ids = tokenizer.encode(REPLY * tokens)[:tokens]
    return ScriptedEngine(tokenizer, itertools.repeat(ids), context=10 * tokens + 1000)


def serve_scripted(port: int, tokens: int) -> int:
    from qwen35_local.bridge import Worker
    from qwen35_local.server.app import make_app
    from qwen35_local.server.listen import listen, serve

    worker = Worker(lambda report: scripted(tokens), waiting=64, parallel=8)
    return serve(make_app(worker), worker, listen("127.0.0.1", port))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def process(*command: str) -> Iterator[int]:
    """A server in a process of its own, once it answers /health (or anything)."""
    port = free_port()
    with subprocess.Popen(
        [part.format(port=port) for part in command], cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as running:
        try:
            ends = time.monotonic() + 180
            while True:
                try:
                    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
                    connection.request("GET", "/health")
                    if connection.getresponse().status != 503:
                        break
                except OSError as error:
                    if time.monotonic() > ends or running.poll() is not None:
                        raise RuntimeError(f"{command} does not answer") from error
                time.sleep(0.2)
            yield port
        finally:
            running.terminate()


def ask(port: int, tokens: int, **fields: Any) -> tuple[float, float, int]:
    """(seconds to the first content, seconds in all, generated tokens) of one streamed answer."""
    body = {"messages": [{"role": "user", "content": "Count."}], "stream": True, "max_tokens": tokens, **fields}
    body["stream_options"] = {"include_usage": True}
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    started = time.perf_counter()
    connection.request("POST", "/v1/chat/completions", json.dumps(body), {"Content-Type": "application/json"})
    response = connection.getresponse()
    if response.status != 200:
        raise RuntimeError(response.read().decode())
    first, said = 0.0, 0
    while line := response.readline():
        if not line.startswith(b"data: {"):
            continue
        chunk = json.loads(line[6:])
        said = (chunk.get("usage") or {}).get("completion_tokens", said)
        delta = chunk["choices"][0]["delta"] if chunk["choices"] else {}
        if not first and any(delta.get(name) for name in ("content", "reasoning_content", "reasoning")):
            first = time.perf_counter() - started
    connection.close()
    return first, time.perf_counter() - started, said


def overhead(tokens: int, repeats: int) -> dict[str, float]:
    """Milliseconds a token through HTTP and in-process, on the scripted engine."""
    engine = scripted(tokens)
    inside, outside, firsts = [], [], []
    with process(sys.executable, __file__, "--serve", "{port}", "--tokens", str(tokens)) as port:
        ask(port, tokens, reasoning_effort="none")
        for _ in range(repeats):
            started = time.perf_counter()
            done = list(engine.chat("Count.", thinking=False, max_tokens=tokens))[-1]
            inside.append((time.perf_counter() - started) / done.usage.completion_tokens)
            first, total, _ = ask(port, tokens, reasoning_effort="none")
            outside.append(total / done.usage.completion_tokens)
            firsts.append(first)
        clients: list[float] = []
        threads = [
            threading.Thread(target=lambda: clients.append(ask(port, tokens, reasoning_effort="none")[1]))
            for _ in range(8)
        ]
        started = time.perf_counter()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        together = time.perf_counter() - started
    extra = [out - own for out, own in zip(outside, inside, strict=True)]
    return {
        "in_process_ms_per_token": 1000 * statistics.median(inside),
        "http_ms_per_token": 1000 * statistics.median(outside),
        "overhead_ms_per_token": 1000 * statistics.median(extra),
        "first_byte_ms": 1000 * statistics.median(firsts),
        "eight_clients_tokens_per_s": 8 * tokens / together,
        "eight_clients_fairness": min(clients) / max(clients),
    }


def against_peer(peer: str, tokens: int, repeats: int) -> dict[str, float]:
    """Tokens per second and time to the first token, ours and mlx_lm.server's, on the miniature."""
    ours = (sys.executable, "-m", "qwen35_local.cli", "serve", "--model", str(MODEL), "--port", "{port}")
    theirs = (peer, "-m", "mlx_lm", "server", "--model", str(MODEL), "--port", "{port}")
    rates: dict[str, list[float]] = {"ours": [], "theirs": []}
    firsts: dict[str, list[float]] = {"ours": [], "theirs": []}
    long = {"temperature": 1.0, "seed": 1, "top_p": 1.0, "logit_bias": never_end()}
    with process(*ours) as our_port, process(*theirs) as their_port:
        ways = {"ours": (our_port, {}), "theirs": (their_port, {"model": str(MODEL)})}
        for repeat in range(repeats + 1):
            for name, (port, own) in ways.items():
                own = own | {"chat_template_kwargs": {"enable_thinking": False}}
                # A question with a short plain answer: its first token is a whole character of text for both.
                brief = [{"role": "user", "content": f"What is {17 + 3 * repeat} + {25 + repeat}?"}]
                first, _, _ = ask(port, 8, **own, temperature=0, messages=brief)
                prompt = [{"role": "user", "content": f"Count from {repeat} on, and do not stop."}]
                begun, total, said = ask(port, tokens, **long, **own, messages=prompt)
                if repeat:  # the first is warm-up
                    rates[name].append((said - 1) / (total - begun))
                    firsts[name].append(first)
    medians = {f"{name}_tokens_per_s": statistics.median(values) for name, values in rates.items()}
    return medians | {f"{name}_first_token_s": statistics.median(values) for name, values in firsts.items()}


def never_end() -> dict[str, float]:
    """A bias that keeps answers going, so that both say as many tokens as they may."""
    from qwen35_local.chat.tokenizer import Tokenizer

    tokenizer = Tokenizer.from_dir(MODEL)
    ends = [*tokenizer.eos_ids, *(tokenizer.special[name] for name in ("<|im_start|>", "<think>", "<tool_response>"))]
    return {str(token): -100 for token in ends}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--peer", help="a Python with mlx-lm, to compare with mlx_lm.server")
    parser.add_argument("--serve", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--tokens", type=int)
    args = parser.parse_args()
    tokens = args.tokens or (300 if args.quick else 2000)
    if args.serve:
        raise SystemExit(serve_scripted(args.serve, tokens))
    repeats = 3 if args.quick else 9
    found = overhead(tokens, repeats)
    ratios = {}
    if args.peer:
        found |= (peer := against_peer(args.peer, min(tokens, 256), repeats))
        ratios["tokens_per_s"] = peer["ours_tokens_per_s"] / peer["theirs_tokens_per_s"]
        ratios["first_token"] = peer["theirs_first_token_s"] / peer["ours_first_token_s"]
    for name, value in {**found, **{f"ratio {name}": value for name, value in ratios.items()}}.items():
        print(f"{name:32} {value:10.3f}")
    if args.json:
        machine = {"machine": platform.platform(), "processor": platform.processor() or platform.machine()}
        args.json.write_text(json.dumps({**machine, "tokens": tokens, "measured": found, "ratios": ratios}, indent=1))


if __name__ == "__main__":
    main()
