"""The README's Python runs as it stands."""

import contextlib
import io
import re
from pathlib import Path

import pytest

README = (Path(__file__).parent.parent / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.strip().splitlines()[0])
def test_python_blocks_run(block):
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        exec(compile(block, "README.md", "exec"), {"__name__": "readme"})
    assert out.getvalue().strip()


def test_there_is_something_to_run():
    assert BLOCKS


def test_the_scripts_that_it_names_exist():
    root = Path(__file__).parent.parent
    named = set(re.findall(r"\bscripts/[a-z_-]+(?:\.py)?", README))
    assert {"scripts/quickstart", "scripts/test"} <= named
    assert all((root / name).exists() for name in named)
