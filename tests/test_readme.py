"""The README's Python runs as it stands."""

import contextlib
import io
import re
from pathlib import Path

import pytest

import qwen35_local

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
SEEN = re.findall(r'qwen35 run --image (\S+) "(.*?)" +# (.*)', README)


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.strip().splitlines()[0])
def test_python_blocks_run(block):
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        exec(compile(block, "README.md", "exec"), {"__name__": "readme"})
    assert out.getvalue().strip()


def test_there_is_something_to_run():
    assert BLOCKS
    assert SEEN


@pytest.mark.parametrize(("file", "question", "answer"), SEEN)
def test_pictures_are_answered_as_it_says(file, question, answer):
    parts = [{"type": "image", "path": ROOT / file}, {"type": "text", "text": question}]
    with qwen35_local.open("miniature") as engine:
        assert engine.complete([{"role": "user", "content": parts}], temperature=0).text == answer


def test_the_scripts_that_it_names_exist():
    named = set(re.findall(r"\bscripts/[a-z0-9_-]+(?:\.py)?", README))
    assert {"scripts/quickstart", "scripts/test"} <= named
    assert all((ROOT / name).exists() for name in named)
