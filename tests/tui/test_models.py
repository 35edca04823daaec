"""Which model answers: the running server's, the one that was named, another from the list."""

import argparse
import json
import re
import threading
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from driven import run

from qwen35_local.backends.scripted import ScriptedEngine
from qwen35_local.chat.tokenizer import Tokenizer
from qwen35_local.commands import chat
from qwen35_local.config import Settings
from qwen35_local.errors import SessionError
from tui.models import ModelChoice
from tui.screens.models import ModelScreen


@run
async def test_another_model_from_the_list_answers_and_sees_the_conversation(drive, tokenizer: Tokenizer):
    made: list[ScriptedEngine] = []
    alive: list[bool] = []

    def other(on_progress, said: str = "from the other") -> ScriptedEngine:
        alive.append(before._thread.is_alive() and before.state != "closed")
        engine = ScriptedEngine(tokenizer, [said])
        engine.info = replace(engine.info, model="other")
        made.append(engine)
        return engine

    def same(on_progress) -> ScriptedEngine:
        raise AssertionError("the model in use was opened again")

    async with drive(["from the first"]) as d:
        d.app.find_models = lambda: [
            ModelChoice("scripted", "loaded by a server", same, served=True),
            ModelChoice("scripted", "", same),
            ModelChoice("other", "2 GiB", other),
        ]
        await d.say("Hi")
        before = d.app.host._worker
        await d.press("f5")
        assert isinstance(d.app.screen, ModelScreen)
        assert re.search(r"│   scripted  loaded by a server", d.screen)
        assert re.search(r"│ ● scripted +│", d.screen)
        await d.press("down", "enter")
        await d.until(lambda: d.app.host.info is not None and d.app.host.info.model == "other")
        assert alive == [False], "the first model was still there when the second was loaded"
        await d.say("And you?")
        assert "from the other" in d.text
        assert [m.text for m in made[-1].requests[-1].messages] == ["Hi", "from the first", "And you?"]
        await d.say("/model nonsense")
        assert "no model 'nonsense'" in d.notice


@run
async def test_changing_the_model_stops_the_answer_and_keeps_it(drive, tokenizer: Tokenizer):
    async with drive(["word " * 500], delay=0.01) as d:
        d.app.find_models = lambda: [ModelChoice("other", "", lambda _: ScriptedEngine(tokenizer, ["new"]))]
        await d.say("Hi", wait=False)
        await d.until(lambda: "word" in d.text)
        await d.say("/model other")
        assert d.app.talk.tree.path()[-1].status == "stopped"
        await d.until(lambda: d.app.host.info is not None)
        await d.say("Again")
        assert "new" in d.text


@run
async def test_what_was_said_is_kept_in_the_session_and_trouble_is_said(drive):
    kept: list[list[str]] = []

    def remember(messages) -> None:
        assert threading.current_thread().name == "engine"
        kept.append([message.text for message in messages])
        if len(kept) == 2:
            raise SessionError("no room for it")

    async with drive(["one", "two"], remember=remember) as d:
        await d.say("Hi")
        await d.until(lambda: kept == [["Hi", "one"]])
        await d.say("And?")
        await d.until(lambda: "no room for it" in d.notice)
        assert kept[1] == ["Hi", "one", "And?", "two"]


@run
async def test_without_models_it_is_said(drive):
    async with drive() as d:
        await d.say("/model")
        assert "no other model" in d.notice


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, str]]:
    """Something on the port of `qwen35 serve`; the test says what it lists."""
    card = {"id": "big", "owned_by": "qwen35-local"}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = json.dumps({"data": [card]}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        thread = threading.Thread(target=partial(running.serve_forever, 0.01))
        thread.start()
        monkeypatch.setattr(chat, "LOCAL_SERVER", f"http://127.0.0.1:{running.server_port}")
        yield card
        running.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("wanted", "owner", "attached"),
    [
        (None, "qwen35-local", True),
        ("big", "qwen35-local", True),
        ("/models/big", "qwen35-local", True),
        ("small", "qwen35-local", False),
        (None, "somebody", False),
    ],
)
def test_a_running_server_is_used_if_it_is_ours_with_that_model(
    server: dict[str, str], wanted: str | None, owner: str, attached: bool
):
    server["owned_by"] = owner
    found = chat.running_server(argparse.Namespace(model=wanted, api_key=None))
    assert (found is not None) is attached
    if found is not None:
        assert found.info.model == "big"


def test_models_to_change_to(server: dict[str, str], tmp_path: Path):
    """The server's, which is the one in use when it answers, and the miniature here, which then is not."""
    server["id"] = "miniature"
    args = argparse.Namespace(model=None, api_key=None, connect=None, session=None)
    served, here = chat.find_models(args, Settings.resolve({"QWEN35_MODELS": str(tmp_path)}))[:2]
    assert (served.name, served.served, here.name, here.served) == ("miniature", True, "miniature", False)
    with served.open(lambda progress: None) as engine:
        assert served.is_open(engine.info)
        assert not here.is_open(engine.info)
    assert not served.is_open(None)


def test_no_server_is_no_error(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(chat, "LOCAL_SERVER", "http://127.0.0.1:9")
    assert chat.running_server(argparse.Namespace(model=None, api_key=None)) is None
