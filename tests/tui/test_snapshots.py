"""Every screen, dark and light, at two sizes, as it was reviewed. `python tests/snapshots.py` rewrites the files."""

import asyncio

import pytest
from snapshots import SCREENS, SIZES, THEMES, golden, shoot


@pytest.mark.parametrize("theme", THEMES)
@pytest.mark.parametrize("size", [SIZES[0], pytest.param(SIZES[1], marks=pytest.mark.slow)], ids=str)
@pytest.mark.parametrize("name", SCREENS)
def test_screen_is_as_it_was(name: str, size: tuple[int, int], theme: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TZ", "UTC")
    assert asyncio.run(shoot(name, size, theme)) == golden(name, size, theme).read_text()
