"""The miniature: a small model of the same architecture, trained for demonstrations and tests. Not the 397B."""

from pathlib import Path


def path() -> Path:
    """Its model directory, which is this one."""
    return Path(__file__).parent
