from typing import Any


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Say what was skipped here, and why, even where pytest is quiet."""
    skipped = [report for report in terminalreporter.stats.get("skipped", []) if "tests/metal_cuda/" in report.nodeid]
    for reason in sorted({report.longrepr[2] for report in skipped}):
        terminalreporter.write_line(f"tests/metal_cuda: {reason}", yellow=True)
