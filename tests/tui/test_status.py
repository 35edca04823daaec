"""The status line and the numbers: what is shown at which width."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

from qwen35_local.engine import EngineInfo
from qwen35_local.events import Progress
from tui.chat.facts import Facts, Gauges
from tui.chat.host import Ready
from tui.chat.turns import Turn
from tui.palette import PLAIN
from tui.screens.numbers import LAYERS, layer_lines, rows
from tui.widgets.status import line, size, sparkline

INFO = EngineInfo("miniature", "mlx", 32768, 2048, 8_350_320, "mxfp4", False, 9 << 20, "CPU")


def shown(facts: Facts, width: int = 120) -> str:
    return line(facts, width, PLAIN, 16 << 30).plain


def test_phases():
    assert "loading the model 25% of 4.0 GiB" in shown(Facts("loading", 1 << 30, 4 << 30))
    assert "reading 50% of 2,000 tokens, 3.0 s left" in shown(Facts("prefill", 1000, 2000, seconds=3.0))
    assert "reading  4.0 s" in shown(Facts("prefill", seconds=4.0))
    assert "thinking 12.5 tok/s  2.0 s" in shown(Facts("thinking", rate=12.5, seconds=2.0))
    assert "no model" in shown(Facts("failed"))


def test_the_context_is_as_full_as_it_was_until_more_is_known():
    """A question that waits for its prompt must not empty the gauge."""
    answer: Any = SimpleNamespace(progress=None, elapsed=2.0, rate=0.0, tokens=0)
    talk: Any = SimpleNamespace(answer=answer)
    gauges = Gauges()
    gauges.read([Turn(1, 0, "assistant", stats={"prompt": 300, "tokens": 20})])
    assert gauges.facts(Ready(INFO), talk, 0).context_used == 320
    answer.progress = Progress("prefill", 0, 500, "tokens")
    assert gauges.facts(Ready(INFO), talk, 0).context_used == 500


def test_gauges():
    facts = Facts("ready", 0, 0, 0.0, 0.0, 512, 1024, 8 << 30, 24 << 30, "m", hit_rate=0.93, disk=(1.0, 4.0))
    text = shown(facts)
    assert "context ━━━━──── 50%" in text
    assert "memory 8.0 GiB of 24.0 GiB" in text
    assert "experts 93%" in text
    assert "disk ▃█ 4.0 GB/s" in text
    assert all(len(shown(facts, width)) <= width for width in (20, 40, 60, 80, 120))


def test_sizes_and_bars():
    assert [size(n) for n in (5, 2048, 212 << 30, 3 << 40)] == ["5 B", "2.0 KiB", "212 GiB", "3.0 TiB"]
    assert sparkline([0.0, 0.0]) == "▁▁"


def test_numbers_of_a_backend_are_flattened():
    found = dict(rows(None, {"tokens": 3, "extra": {"seed": 1, "experts": {"hit_rate": 0.5, "bytes_read": 2048}}}))
    assert found["answer tokens"] == "3"
    assert found["experts: hit rate"] == "0.5"
    assert found["experts: bytes read"] == "2.0 KiB"


def test_numbers_that_a_server_does_not_tell_are_left_out():
    names = dict(rows(replace(INFO, backend="remote", memory=0), {"tokens": 3, "cached": 0, "memory": 0}))
    assert names["of them reused"] == "0"
    assert not {"weights", "peak memory"} & set(names)


def test_every_layer_has_a_line():
    layers = [
        {"hit_rate": 0.75, "bytes_read": 3 << 20, "stall_seconds": 0.25, "slots": 20},
        {"hit_rate": 0.0, "bytes_read": 0, "stall_seconds": 0.0, "slots": 4},
    ]
    first, second = (text.plain for text in layer_lines(layers, PLAIN))
    assert first.split() == ["0", "━" * 10 + "─" * 4, "75%", "20", "3.0", "MiB", "0.250", "s"]
    assert second.startswith("    1  " + "─" * 14 + "   0%")
    assert len(first) == len(LAYERS) == len(second)
