"""The app as a new user has it: the miniature, in tmux, by keys alone. Slow, so run by name."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tui.store.history import History

ROOT = Path(__file__).parents[2]
PATIENCE = 90.0  # seconds; a loaded machine with two cores is slow to load a model
BABBLE = "--temperature 50 --top-p 1 --top-k 0 --max-tokens 3000"  # any token is as likely as the end: it goes on long
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("tmux") is None, reason="tmux is not installed"),
]


class Terminal:
    """A pane of tmux with a shell in it."""

    def __init__(self, socket: Path, data: Path, **env: str):
        self._tmux = ["tmux", "-S", str(socket), "-f", "/dev/null"]
        self.app = f"{sys.executable} -m qwen35_local.cli chat --no-attach --no-think --seed 1"
        said = {
            **{name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ},
            "PS1": "prompt> ",
            "PYTHONPATH": str(ROOT),
            "QWEN35_DATA": str(data),
            "TERM": "screen-256color",
            **env,
        }
        assigned = " ".join(f"{name}='{value}'" for name, value in said.items())
        shell = f"cd {ROOT} && exec env -i {assigned} bash --norc -i"
        self._run("new-session", "-d", "-s", "t", "-x", "100", "-y", "30", shell)

    def _run(self, *words: str) -> str:
        return subprocess.run([*self._tmux, *words], check=True, capture_output=True, text=True).stdout

    @property
    def text(self) -> str:
        return self._run("capture-pane", "-p", "-t", "t")

    @property
    def styled(self) -> str:
        return self._run("capture-pane", "-p", "-e", "-t", "t")

    def type(self, text: str) -> None:
        self._run("send-keys", "-t", "t", "-l", text)

    def press(self, *keys: str) -> None:
        self._run("send-keys", "-t", "t", *keys)

    def resize(self, width: int, height: int) -> None:
        self._run("resize-window", "-t", "t", "-x", str(width), "-y", str(height))

    def until(self, *words: str, gone: str = "") -> str:
        return self.wait(lambda text: all(word in text for word in words) and (not gone or gone not in text), words)

    def wait(self, condition: Callable[[str], bool], what: object = "") -> str:
        end = time.monotonic() + PATIENCE
        while not condition(text := self.text):
            assert time.monotonic() < end, f"{what} did not come:\n{text}"
            time.sleep(0.05)
        return text

    def start(self, *flags: str) -> None:
        self.until("prompt>")
        self.type(" ".join([self.app, *flags]))
        self.press("Enter")
        self.until("Ask anything")

    def say(self, text: str, *answer: str) -> str:
        self.type(text)
        self.press("Enter")
        return self.until("● ready", *answer)

    def pid(self) -> int:
        """Of the app."""
        shell = self._run("list-panes", "-t", "t", "-F", "#{pane_pid}").strip()
        children = subprocess.run(["ps", "-o", "pid=", "--ppid", shell], check=True, capture_output=True, text=True)
        return int(children.stdout.split()[0])

    def close(self) -> None:
        subprocess.run([*self._tmux, "kill-server"], check=False, capture_output=True)


@pytest.fixture
def terminals(tmp_path: Path) -> Iterator[Callable[..., Terminal]]:
    """Panes with one history, each closed at the end."""
    opened: list[Terminal] = []

    def open_one(**env: str) -> Terminal:
        opened.append(Terminal(tmp_path / f"s{len(opened)}", tmp_path / "data", **env))
        return opened[-1]

    yield open_one
    for terminal in opened:
        terminal.close()


def test_a_first_evening(terminals: Callable[..., Terminal], tmp_path: Path):
    """First run, ask, edit and branch, a tool call, another chat, an old chat found again, leaving."""
    terminal = terminals()
    terminal.start("--temperature 0")
    terminal.until("miniature", "● ready")
    terminal.say("What is 17 + 25?", "42", "tokens at")
    terminal.press("C-e")
    terminal.until("editing")
    terminal.press(*["BSpace"] * 2)
    terminal.say("6?", "‹ 2/2 ›", "▌ What is 17 + 26?", "43")
    terminal.press("BTab", "Up", "Up", "Left")
    terminal.until("‹ 1/2 ›", "▌ What is 17 + 25?")
    terminal.press("Tab")  # Escape and a letter at once would be Alt and that letter
    terminal.say("/tools on", "tools is on")
    text = terminal.say("Calculate 123 * 45.", "⚙ calculate(", "→")
    found = re.search(r"→ (\d+)", text)
    assert found
    terminal.press("C-n")
    terminal.until("New chat")
    terminal.say("What is the capital of France?", "Paris")
    terminal.press("F2")
    terminal.until("Find in all chats")
    terminal.type(found[1])
    terminal.wait(lambda text: re.search(rf"│ +What is 17 \+ 25\?  .*│\n.*│.*{found[1]}.*│", text) is not None, found)
    terminal.press("Enter")
    terminal.until("⚙ calculate(")
    terminal.press("C-q")
    text = terminal.until("prompt>", gone="Ask anything")
    assert "Traceback" not in text


def test_a_picture_is_attached_seen_and_kept(terminals: Callable[..., Terminal]):
    """The scene of the README: a blue star over a green triangle, a red circle."""
    terminal = terminals()
    terminal.start("--temperature 0")
    terminal.until("sees pictures")
    terminal.type("/image docs/scene.png")
    terminal.until("│ scene.png")
    terminal.press("Enter")
    terminal.until("[Image #1]", "1 to send · 11 tokens")
    terminal.say("What colour is the star?", "star is blue", "scene.png  96×96 → 96×96 · 11 tokens")
    terminal.say("What colour is the circle?", "red")
    terminal.press("C-q")
    terminal.until("prompt>", gone="Ask anything")
    terminal.start("--temperature 0")
    terminal.press("F2")
    terminal.until("What colour is the star?")
    terminal.press("Enter")
    terminal.until("star is blue", "11 tokens", "red")


def test_99_102_resize_while_streaming(terminals: Callable[..., Terminal]):
    terminal = terminals()
    terminal.start(BABBLE)
    terminal.until("● ready")
    terminal.type("Tell me a very long story.")
    terminal.press("Enter")
    terminal.until("answering")
    for size in ((80, 24), (20, 5), (140, 45), (80, 24)):
        terminal.resize(*size)
        terminal.wait(lambda text, size=size: len(text.splitlines()) == size[1] and "Traceback" not in text, size)
    terminal.until("answering", "Ask anything")
    terminal.press("Escape")
    terminal.until("stopped", "● ready")
    assert all(len(line) <= 80 for line in terminal.text.splitlines())


def test_108_kill_in_the_middle_and_reopen(terminals: Callable[..., Terminal], tmp_path: Path):
    terminal = terminals()
    terminal.start(BABBLE)
    terminal.until("● ready")
    terminal.type("Tell me a very long story.")
    terminal.press("Enter")
    terminal.until("answering")
    terminal.wait(lambda text: len(text.split()) > 60, "some words")
    seen = terminal.text
    os.kill(terminal.pid(), signal.SIGKILL)
    terminal.until("Killed")
    terminal.close()
    history = History(tmp_path / "data" / "history.sqlite3")
    kept = history.load(history.chats()[0].id).path()[-1]
    history.close()
    assert kept.status == "writing"
    body = seen.split("Qwen", 1)[1].split("╭")[0]
    assert len("".join(kept.text.split())) > 0.5 * len("".join(body.split()))
    again = terminals()
    again.start(BABBLE)
    again.press("F2")
    again.until("Tell me a very long story.", "2 messages")
    again.press("Enter")
    again.until("interrupted", "● ready")
    before = again.text
    again.type("/continue")
    again.press("Enter")
    again.until("answering", gone="interrupted")
    again.press("Escape")
    again.until("stopped", "● ready")
    assert again.text != before


def test_110_suspend_and_resume(terminals: Callable[..., Terminal]):
    terminal = terminals()
    terminal.start()
    terminal.until("● ready")
    terminal.type("half a thought")
    terminal.until("half a thought")
    terminal.press("C-z")
    terminal.until("Stopped", gone="Ask anything")
    terminal.type("fg")
    terminal.press("Enter")
    terminal.until("half a thought", "● ready")
    terminal.press("C-u")
    terminal.say("What is 17 + 25?", "42")


def test_a_session_is_resumed_with_its_state(terminals: Callable[..., Terminal]):
    terminal = terminals()
    terminal.start("--session evening --temperature 0")
    terminal.say("What is 17 + 25?", "42")
    terminal.press("C-q")
    terminal.until("prompt>", gone="Ask anything")
    terminal.start("--session evening --temperature 0")
    terminal.press("F2")
    terminal.until("2 messages")
    terminal.press("Enter")
    terminal.until("42", "● ready")
    terminal.say("What is 17 + 26?", "43")
    terminal.press("F4")
    text = terminal.until("of them reused")
    reused = re.search(r"of them reused +(\d+)", text)
    assert reused
    assert int(reused[1]) > 10


@pytest.mark.parametrize(
    ("env", "coloured"),
    [({"NO_COLOR": "1"}, False), ({"TERM": "screen"}, True), ({"COLORTERM": "truecolor"}, True)],
    ids=["NO_COLOR", "16 colours", "truecolor"],
)
def test_101_colours(terminals: Callable[..., Terminal], env: dict[str, str], coloured: bool):
    terminal = terminals(**env)
    terminal.start()
    terminal.say("What is 17 + 25?", "42")
    styled = terminal.styled
    colours = [code for code in ("\x1b[3", "\x1b[38;", "\x1b[9") if code in styled.replace("\x1b[39m", "")]
    assert bool(colours) is coloured, styled
    if env.get("TERM") == "screen":
        assert "38;2;" not in styled
        assert "38;5;" not in styled


def test_100_ctrl_c_while_the_model_loads(terminals: Callable[..., Terminal]):
    """A question, Ctrl+C, and out: whatever the engine's thread does."""
    terminal = terminals()
    terminal.until("prompt>")
    terminal.type(terminal.app)
    terminal.press("Enter")
    terminal.until("Ask anything")
    terminal.type("What is 17 + 25?")
    terminal.press("Enter")
    terminal.press("C-c")
    terminal.wait(lambda text: "stopped" in text or "42" in text)
    terminal.press("C-c")
    terminal.until("again")
    terminal.press("C-c")
    text = terminal.until("prompt>", gone="Ask anything")
    assert "Traceback" not in text
    assert "Error" not in text
