"""What the terminal app costs: start, streaming, a long transcript, search, and the engine's speed under it.

python scripts/bench_tui.py [start stream textual append search speed memory] [--quick] [--json FILE]

"CPU" is that of the whole process, so it does not depend on what else the machine does; wall times do.
"""

import argparse
import asyncio
import json
import os
import pty
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from textual.app import App, ComposeResult
from textual.containers import VerticalScroll
from textual.widgets import Markdown

import qwen35_local
from qwen35_local.bridge import Worker
from qwen35_local.engine import ChatRequest, Engine, EngineInfo, Session
from qwen35_local.events import Done, Event, Progress, Stats, Text, Usage
from tui.app import ChatApp
from tui.chat.host import PAUSE
from tui.chat.turns import Turn
from tui.store.history import History

ROOT = Path(__file__).parent.parent
PARAGRAPH = "Some **words** with `code` and more of them, so that a line wraps and is drawn again.\n\n- one\n- two\n\n"
CODE = "```python\ndef f(x):\n    return x + 1\n```\n\n"


def fragments(count: int) -> list[str]:
    """Four characters each, of Markdown as models write it."""
    text = (PARAGRAPH * 5 + CODE) * (4 * count // (5 * len(PARAGRAPH) + len(CODE)) + 1)
    return [text[at : at + 4] for at in range(0, 4 * count, 4)]


class Reciter(Engine):
    """Says fragments, one every `pause` seconds."""

    def __init__(self, pieces: list[str], pause: float):
        self.info = EngineInfo("reciter", "none", 1 << 20, 1)
        self._pieces, self._pause = pieces, pause

    def stream(self, request: ChatRequest) -> Iterator[Event]:
        yield Progress("prefill", 1, 1)
        for piece in self._pieces:
            time.sleep(self._pause)
            yield Text(piece)
        yield Done("stop", Usage(1, len(self._pieces)), Stats(0, 0, 0, 0))

    def open_session(self) -> Session:
        raise NotImplementedError

    def tokenize(self, text: str, special: bool = False) -> list[int]:
        return []

    def detokenize(self, ids) -> str:
        return ""

    def close(self) -> None: ...


async def longest_gap(stop: asyncio.Event) -> float:
    """Seconds for which the event loop did not come round."""
    worst = 0.0
    while not stop.is_set():
        before = time.perf_counter()
        await asyncio.sleep(0.005)
        worst = max(worst, time.perf_counter() - before - 0.005)
    return worst


async def stream_ours(count: int, pause: float) -> tuple[float, float]:
    """(CPU seconds, worst stall) of one answer in the app."""
    app = ChatApp(lambda progress: Reciter(fragments(count), pause))
    async with app.run_test(size=(100, 40)) as pilot:
        while app.host.info is None:
            await pilot.pause(0.01)
        stop = asyncio.Event()
        watch = asyncio.create_task(longest_gap(stop))
        cpu = time.process_time()
        app.talk.ask("go")
        app.chat.redraw()
        while app.talk.busy:
            await asyncio.sleep(0.02)
        cpu = time.process_time() - cpu
        stop.set()
        return cpu, await watch


class Plain(App[None]):
    """Textual's own streaming, as a baseline."""

    def compose(self) -> ComposeResult:
        with VerticalScroll():
            yield Markdown()


async def stream_plain(count: int, pause: float) -> tuple[float, float]:
    app = Plain()
    async with app.run_test(size=(100, 40)):
        stop = asyncio.Event()
        watch = asyncio.create_task(longest_gap(stop))
        cpu = time.process_time()
        stream = Markdown.get_stream(app.query_one(Markdown))
        for piece in fragments(count):
            await asyncio.sleep(pause)
            await stream.write(piece)
        await stream.stop()
        cpu = time.process_time() - cpu
        stop.set()
        return cpu, await watch


async def append_late(kilobytes: int) -> float:
    """CPU seconds of one look at a growing answer below a transcript of that length."""
    app = ChatApp(lambda progress: Reciter(fragments(300), 0.003))
    async with app.run_test(size=(100, 40)) as pilot:
        above, size = 0, 0
        for number in range(1, 10_000):
            text = (PARAGRAPH * 8 + CODE) * 2
            app.talk._put(Turn(number, above, "assistant" if number % 2 == 0 else "user", text))
            above, size = number, size + len(text)
            if size > kilobytes * 1024:
                break
        app.chat.redraw()
        await pilot.pause(0.2)
        app.talk.ask("go")
        app.chat.redraw()
        transcript, spent, looks = app.chat.transcript, 0.0, 0
        grow = transcript.grow

        def timed(turn: Turn, text: str) -> None:
            nonlocal spent, looks
            began = time.thread_time()
            grow(turn, text)
            transcript.screen._refresh_layout()
            spent, looks = spent + time.thread_time() - began, looks + 1

        transcript.grow = timed  # type: ignore[method-assign]
        while app.talk.busy:
            await asyncio.sleep(0.02)
        return spent / max(looks, 1)


async def memory_of(messages: int) -> tuple[int, int]:
    """Peak resident bytes after a tenth of the messages and after all."""
    app = ChatApp(lambda progress: Reciter(fragments(60), 0.0))
    async with app.run_test(size=(100, 40)) as pilot:
        while app.host.info is None:
            await pilot.pause(0.01)
        early = 0
        for number in range(messages // 2):
            app.talk.ask(f"question {number}")
            app.chat.redraw()
            while app.talk.busy:
                await asyncio.sleep(0.005)
            if number == messages // 20:
                early = peak()
        return early, peak()


def peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def start() -> tuple[float, float, float]:
    """Seconds to the first paint and to a composer that echoes, in a real terminal; CPU seconds to the paint."""
    main, side = pty.openpty()
    with tempfile.TemporaryDirectory() as data:
        env = {**os.environ, "TERM": "xterm-256color", "QWEN35_DATA": data, "COLUMNS": "80", "LINES": "24"}
        began = time.perf_counter()
        command = [sys.executable, "-m", "qwen35_local.cli", "chat"]
        child = subprocess.Popen(
            command, stdin=side, stdout=side, stderr=side, cwd=ROOT, env=env, start_new_session=True
        )
        os.close(side)
        wait_for(main, b"sk anything")  # the cursor may stand on the first letter, in colours of its own
        painted, cpu = time.perf_counter() - began, cpu_of(child.pid)
        os.write(main, b"\x1b[200~zq9z\x1b[201~")
        wait_for(main, b"zq9z")
        usable = time.perf_counter() - began
        os.write(main, b"\x11")
        try:
            while os.read(main, 65536):
                pass
        except OSError:
            pass
        child.wait()
        os.close(main)
    return painted, usable, cpu


def cpu_of(pid: int) -> float:
    """CPU seconds that a process has used; 0 where the system does not tell (it needs /proc)."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def wait_for(terminal: int, what: bytes) -> None:
    seen = b""
    while what not in seen:
        seen += os.read(terminal, 65536)


async def speeds(rounds: int, tokens: int) -> tuple[float, float]:
    """Tokens a second of the miniature, without and with the app, taken in turn; the best of each."""
    request = ChatRequest.of("Tell me a very long story.", thinking=False, max_tokens=tokens, temperature=2.0, seed=1)
    bare, attached = [], []
    app = ChatApp(lambda progress: qwen35_local.open("miniature", on_progress=progress))
    worker = Worker(lambda progress: qwen35_local.open("miniature", on_progress=progress))
    worker.start()
    await worker.ready()
    async with app.run_test(size=(100, 40)) as pilot:
        while app.host.info is None:
            await pilot.pause(0.01)
        app.preferences = replace(
            app.preferences, thinking=False, max_tokens=tokens, sampling={"temperature": 2.0, "seed": 1}
        )
        for _ in range(rounds):
            answer = await worker.ask(request)
            async for events in answer.read().batches():
                if isinstance(events[-1], Done):
                    bare.append(events[-1].stats.generation_tps)
                await asyncio.sleep(PAUSE)
            app.talk.new()
            app.talk.ask("Tell me a very long story.")
            app.chat.redraw()
            while app.talk.busy:
                await asyncio.sleep(0.05)
            attached.append(app.talk.tree.path()[-1].stats["speed"])
    worker.close()
    return max(bare), max(attached)


def search_time(messages: int) -> tuple[float, float]:
    """The slowest of four searches: seconds, and CPU seconds, which a busy machine leaves alone."""
    with tempfile.TemporaryDirectory() as folder:
        history = History(Path(folder) / "h.sqlite3")
        words = [f"word{n}" for n in range(3000)]
        for chat in range(1, messages // 50 + 1):
            turns = []
            for n in range(50):
                text = " ".join(words[(chat * n * 7 + k * 13) % 3000] for k in range(60))
                turns.append(Turn(chat * 1000 + n, chat * 1000 + n - 1 if n else 0, "user", text))
            history.put(chat, turns, turns[-1].id)
        worst = worst_cpu = 0.0
        for query in ("word17", "word1", "word", "word5 word18"):
            began, cpu = time.perf_counter(), time.thread_time()
            history.search(query)
            worst_cpu = max(worst_cpu, time.thread_time() - cpu)
            worst = max(worst, time.perf_counter() - began)
        history.close()
    return worst, worst_cpu


Say = Callable[..., None]


def bench_start(say: Say, full: bool) -> None:
    starts = [start() for _ in range(5 if full else 1)]
    say("start to first paint", min(paint for paint, *_ in starts), "s")
    say("start to first paint: CPU", min(cpu for *_, cpu in starts), "s")
    say("start to usable composer", min(usable for _, usable, _ in starts), "s")


def bench_stream(say: Say, full: bool) -> None:
    count, pause = (6000, 0.003) if full else (500, 0.002)
    ours = asyncio.run(stream_ours(count, pause))
    say(f"{count} fragments: CPU", ours[0], "s")
    say(f"{count} fragments: worst stall", ours[1], "s")


def bench_textual(say: Say, full: bool) -> None:
    count, pause = (1500, 0.003) if full else (300, 0.002)
    plain, same = asyncio.run(stream_plain(count, pause)), asyncio.run(stream_ours(count, pause))
    say(f"{count} fragments, Textual's Markdown: CPU", plain[0], "s")
    say(f"{count} fragments, ours: CPU", same[0], "s")
    say("ratio: Textual's Markdown over ours, CPU", plain[0] / same[0])


def bench_append(say: Say, full: bool) -> None:
    say("a look below 1 KB: CPU", asyncio.run(append_late(1)), "s")
    say("a look below 150 KB: CPU", asyncio.run(append_late(150)), "s")


def bench_search(say: Say, full: bool) -> None:
    count = 10_000 if full else 1_000
    wall, cpu = search_time(count)
    say(f"search in {count:,} messages", wall, "s")
    say(f"search in {count:,} messages: CPU", cpu, "s")


def bench_speed(say: Say, full: bool) -> None:
    bare, attached = asyncio.run(speeds(5 if full else 1, 200 if full else 50))
    say("miniature alone", bare, "tok/s")
    say("miniature with the app", attached, "tok/s")
    say("ratio: speed with the app", attached / bare)


def bench_memory(say: Say, full: bool) -> None:
    early, late = asyncio.run(memory_of(500 if full else 40))
    say("peak memory early", early / 2**20, "MiB")
    say("peak memory at the end", late / 2**20, "MiB")


PARTS: dict[str, Callable[[Say, bool], None]] = {
    "start": bench_start,
    "stream": bench_stream,
    "textual": bench_textual,
    "append": bench_append,
    "search": bench_search,
    "speed": bench_speed,
    "memory": bench_memory,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)} (default: all)")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    if unknown := set(args.parts) - set(PARTS):
        parser.error(f"no part {', '.join(sorted(unknown))}: use {', '.join(PARTS)}")
    found: dict[str, float] = {}

    def say(name: str, value: float, unit: str = "") -> None:
        found[name] = value
        print(f"{name:42} {value:10.3f} {unit}", flush=True)

    for part in args.parts or PARTS:
        PARTS[part](say, not args.quick)
    if args.json:
        ratios = {name.removeprefix("ratio: "): value for name, value in found.items() if name.startswith("ratio")}
        args.json.write_text(json.dumps({"results": found, "ratios": ratios}, indent=1))


if __name__ == "__main__":
    main()
