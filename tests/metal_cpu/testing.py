"""For test files that run kernels: `pytestmark = pytest.mark.usefixtures("compiler")`."""

import os

import pytest

from .compiler import missing

ORDERS = [{"order": "forward"}, {"order": "reverse"}, {"order": "shuffled", "seed": 7}]
SANITIZERS = ["address", "thread"]


@pytest.fixture(scope="session")
def compiler() -> None:
    """Skips, with the reason, where kernels cannot be compiled. In CI that would hide everything, so it fails there."""
    if reason := missing():
        (pytest.fail if os.environ.get("CI", "").lower() == "true" else pytest.skip)(reason)
