"""A repository on a fake Hub, and no token or setting of the developer's in the way."""

import random
import signal
from collections.abc import Iterator

import pytest

from hub.fake_hub import FakeHub
from qwen35_local.hub.transfer import Patience

QUICK = Patience(connections=3, segment=64 << 10, stall=0.4, tries=4, first_pause=0.01, longest_pause=0.05)


@pytest.fixture(autouse=True)
def no_settings(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    import huggingface_hub.constants as constants

    for name in ("HF_TOKEN", "HF_ENDPOINT", "HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))


@pytest.fixture(autouse=True, scope="session")
def children_hear_ctrl_c() -> None:
    """A shell starts background jobs deaf to SIGINT, and so would be the processes that these tests start."""
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def files() -> dict[str, bytes]:
    noise = random.Random(9)
    return {
        ".gitattributes": b"*.safetensors filter=lfs\n",
        "README.md": b"# a model\n",
        "config.json": b'{"model_type": "qwen3_5_moe"}\n',
        "empty.txt": b"",
        "model-00001-of-00002.safetensors": noise.randbytes(700_001),
        "model-00002-of-00002.safetensors": noise.randbytes(300_000),
        "pytorch_model.bin": b"never fetched",
    }


@pytest.fixture
def hub(files: dict[str, bytes]) -> Iterator[FakeHub]:
    with FakeHub(dict(files)) as hub:
        yield hub
