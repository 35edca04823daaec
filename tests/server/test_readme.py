"""The snippets of the server's page run, against the miniature."""

import re
from pathlib import Path
from typing import Any

import pytest

import qwen35_local.server

PAGE = (Path(qwen35_local.server.__file__).parent / "README.md").read_text()
SNIPPETS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


@pytest.mark.parametrize("snippet", SNIPPETS, ids=["openai", "anthropic", "langchain"])
def test_snippets(miniature, snippet, capsys):
    assert "http://127.0.0.1:8035" in snippet
    names: dict[str, Any] = {}
    exec(snippet.replace("http://127.0.0.1:8035", miniature.url), names)
    client = names["client"] if "client" in names else names["model"].root_client
    client.close()
    assert capsys.readouterr().out.strip()


def test_every_route_is_on_the_page(miniature):
    from qwen35_local.server.app import Server, Settings

    paths = {route.path for route in Server(miniature.worker, Settings()).routes()}
    missing = [path for path in paths if path.replace("{name:path}", "{id}").replace("{name}", "{id}") not in PAGE]
    assert not missing
