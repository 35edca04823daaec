"""Which implementation of an operation runs: decided once per machine, by trial, in the open.

Off Metal it is the reference. On Metal the first use of an operation runs every candidate (our kernel, MLX's own
kernels, the reference) on random inputs of the real shapes, drops those that fail or disagree with the reference, and
keeps the fastest of the rest. A kernel of ours that fails or disagrees is warned about, never used.

Verdicts are kept in a file, by machine, system, MLX version and kernel text; `report` is what `qwen35 doctor` shows.
"""

import hashlib
import json
import platform
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from importlib import resources
from importlib.metadata import version
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np

MODES = ("auto", "metal", "reference")
RUNS = 7  # the median of so many runs is a candidate's time
OURS, REFERENCE = "ours", "reference"


@dataclass(frozen=True)
class Operation:
    """One operation, its implementations (all of one signature) and inputs to try them on.

    `cases` makes argument tuples of the real shapes; the last is timed. `tolerance` bounds the error over the spread
    of the reference's output. `stock` are MLX's own ways to compute the same.
    """

    name: str
    reference: Callable[..., Any]
    ours: Callable[..., Any]
    cases: Callable[[], list[tuple]]
    tolerance: float
    stock: Mapping[str, Callable[..., Any]] = field(default_factory=dict)

    def best(self) -> Callable[..., Any]:
        """The implementation to call on this machine."""
        if _settings.mode == REFERENCE or not _settings.on_metal():
            return self.reference
        return self.candidates()[_verdict(self).used]

    def candidates(self) -> dict[str, Callable[..., Any]]:
        return {OURS: self.ours, **self.stock, REFERENCE: self.reference}


@dataclass(frozen=True)
class Trial:
    """What one candidate did: `outcome` is verified, mismatch or failed, with the reason in words."""

    candidate: str
    outcome: str
    reason: str = ""
    error: float | None = None
    microseconds: float | None = None


@dataclass(frozen=True)
class Verdict:
    """The candidate that is used for an operation, and the trials that led to it (none off Metal)."""

    operation: str
    used: str
    trials: tuple[Trial, ...] = ()


@dataclass
class _Settings:
    mode: str = "auto"
    cache: Path | None = None

    def on_metal(self) -> bool:
        return mx.metal.is_available() and mx.default_device() == mx.Device(mx.gpu)


_settings = _Settings()
_verdicts: dict[str, Verdict] = {}


def configure(mode: str = "auto", cache: Path | None = None) -> None:
    """Set the mode and where verdicts are kept.

    auto uses the fastest verified candidate, metal ours if it is verified, reference MLX operations only. Set again to
    the same, nothing is judged anew.
    """
    if mode not in MODES:
        raise ValueError(f"kernels: {mode} is none of {', '.join(MODES)}")
    if (mode, cache) != (_settings.mode, _settings.cache):
        _settings.mode, _settings.cache = mode, cache
        _verdicts.clear()


def report(operations: list[Operation]) -> list[Verdict]:
    """The verdict on every operation, judged now if it was not before."""
    if _settings.mode == REFERENCE or not _settings.on_metal():
        return [Verdict(operation.name, REFERENCE) for operation in operations]
    return [_verdict(operation) for operation in operations]


def judge(operation: Operation, mode: str = "auto", clock: Callable[[], float] = time.perf_counter) -> Verdict:
    """Try every candidate on every case and choose."""
    cases = operation.cases()
    expected = [_evaluated(operation.reference(*case)) for case in cases]
    trials = tuple(_try(name, run, operation, cases, expected, clock) for name, run in operation.candidates().items())
    verified = {t.candidate: t.microseconds or 0.0 for t in trials if t.outcome == "verified"}
    used = OURS if mode == "metal" and OURS in verified else min(verified, key=verified.__getitem__, default=REFERENCE)
    for trial in trials:
        if trial.candidate == OURS and trial.outcome != "verified":
            warnings.warn(
                f"the Metal kernel for {operation.name} is not used, {used} is: {trial.reason}",
                RuntimeWarning,
                stacklevel=2,
            )
    return Verdict(operation.name, used, trials)


def _try(
    name: str,
    run: Callable[..., Any],
    operation: Operation,
    cases: list[tuple],
    expected: list[list[mx.array]],
    clock: Callable[[], float],
) -> Trial:
    try:
        error = max(disagreement(_evaluated(run(*case)), want) for case, want in zip(cases, expected, strict=True))
        if not error <= operation.tolerance:
            reason = f"it differs from the reference by {error:.1e} of the spread, {operation.tolerance:.0e} is allowed"
            return Trial(name, "mismatch", reason, error)
        times = []
        for _ in range(RUNS):
            start = clock()
            _evaluated(run(*cases[-1]))
            times.append(clock() - start)
        return Trial(name, "verified", "", error, sorted(times)[RUNS // 2] * 1e6)
    except (RuntimeError, ValueError) as error:  # MLX's errors, the Metal compiler's among them
        return Trial(name, "failed", str(error).strip().splitlines()[0][:200] if str(error) else repr(error))


def _evaluated(outputs: Any) -> list[mx.array]:
    arrays = list(outputs) if isinstance(outputs, (tuple, list)) else [outputs]
    mx.eval(arrays)
    return arrays


def disagreement(got: list[mx.array], want: list[mx.array]) -> float:
    """The largest error over the spread of what was wanted; infinite for NaN, other shapes or other integers."""
    worst = 0.0
    for a, b in zip(got, want, strict=True):
        if a.shape != b.shape:
            return float("inf")
        if mx.issubdtype(b.dtype, mx.integer):
            worst = max(worst, 0.0 if mx.array_equal(a, b).item() else float("inf"))
            continue
        x, y = (np.array(array.astype(mx.float32)).astype(np.float64) for array in (a, b))
        error = float(np.abs(x - y).max() / max(y.std(), 1e-30))
        worst = max(worst, error if np.isfinite(error) else float("inf"))
    return worst


# ---- verdicts on disk ---------------------------------------------------------------------------------------------
def _machine() -> str:
    """What a verdict depends on besides the operation."""
    texts = sorted(p.read_text() for p in resources.files("metal_kernels").iterdir() if p.name.endswith(".metal"))
    kernels = hashlib.sha256("".join(texts).encode()).hexdigest()[:12]
    device = mx.device_info().get("device_name", platform.machine())
    system = platform.mac_ver()[0] or platform.system()
    return f"{device}, {system}, mlx {version('mlx')}, kernels {kernels}, {_settings.mode}"


def _verdict(operation: Operation) -> Verdict:
    if operation.name not in _verdicts:
        stored = _stored().get(operation.name)
        if stored is None or stored.used not in operation.candidates():
            stored = judge(operation, _settings.mode)
            _store(stored)
        _verdicts[operation.name] = stored
    return _verdicts[operation.name]


def _file() -> Path | None:
    return _settings.cache / "kernels.json" if _settings.cache else None


def _read() -> dict[str, Any]:
    path = _file()
    try:
        found = json.loads(path.read_text()) if path else {}
    except (OSError, ValueError):  # no file yet, or not ours: judge again
        return {}
    return found if isinstance(found, dict) else {}


def _stored() -> dict[str, Verdict]:
    try:
        return {
            name: Verdict(name, v["used"], tuple(Trial(**t) for t in v["trials"]))
            for name, v in _read().get(_machine(), {}).items()
        }
    except (KeyError, TypeError, AttributeError):
        return {}


def _store(verdict: Verdict) -> None:
    if not (path := _file()):
        return
    kept = _stored() | {verdict.operation: verdict}  # other machines and older versions are dropped
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({_machine(): {name: asdict(v) for name, v in kept.items()}}, indent=1))
    except OSError as error:
        warnings.warn(f"the kernels' verdicts cannot be kept in {path}: {error}", RuntimeWarning, stacklevel=2)
