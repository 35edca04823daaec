"""Machines to plan for, and what a plan would do on them. Everything here is a prediction, and says so.

Sources: memory bandwidth as Apple states it; SSD rates as users of streaming engines measured them with reads of the
size of an expert. Nothing was measured by us: no Mac was at hand.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

from .budget import MemoryPlan


@dataclass(frozen=True, slots=True)
class Machine:
    """Memory in GiB, bandwidths in GB/s, and who measured the SSD."""

    name: str
    memory: int
    bandwidth: float
    ssd: float
    source: str


MACHINES: Mapping[str, Machine] = {
    machine.name: machine
    for machine in (
        Machine("m4-24", 24, 120, 3.0, "M4 and M4 Air users: 2.4 to 3.4"),
        Machine("m4-pro-24", 24, 273, 6.3, "M4 Pro users: 6.3 to 6.8"),
        Machine("m1-max-32", 32, 400, 3.5, "M1 Max user: 3.5"),
        Machine("m3-max-48", 48, 400, 5.5, "flash-moe: 5.5 cold and uncached (17.5 claimed sequential)"),
        Machine("m4-pro-48", 48, 273, 6.3, "M4 Pro users: 6.3 to 6.8"),
        Machine("m5-pro-48", 48, 307, 12.9, "waste: 12.9 (slotstream: 17.3)"),
        Machine("m4-pro-64", 64, 273, 6.8, "M4 Pro users: 6.3 to 6.8"),
        Machine("m4-max-64", 64, 546, 6.3, "taken as the M4 Pro's"),
        Machine("m5-pro-64", 64, 307, 12.9, "waste: 12.9 (slotstream: 17.3)"),
        Machine("m3-ultra-96", 96, 819, 6.5, "Ultra users: 5.9 to 7.1"),
        Machine("m3-max-128", 128, 400, 5.5, "flash-moe: 5.5 cold and uncached"),
        Machine("m4-max-128", 128, 546, 6.3, "taken as the M4 Pro's"),
        Machine("m5-max-128", 128, 614, 12.9, "colibri: 11.7 buffered, 14.2 direct"),
        Machine("m2-ultra-192", 192, 800, 6.5, "Ultra users: 5.9 to 7.1"),
        Machine("m3-ultra-256", 256, 819, 6.5, "Ultra users: 5.9 to 7.1"),
        Machine("m3-ultra-512", 512, 819, 6.5, "Ultra users: 5.9 to 7.1"),
    )
}

# Share of a layer's experts in memory -> hits, from traces of a 512-expert top-10 model and of this one at top-4.
HITS = ((0.0, 0.0), (0.02, 0.30), (0.039, 0.473), (0.059, 0.568), (0.117, 0.707), (0.146, 0.73), (0.215, 0.78),
        (0.354, 0.837), (0.506, 0.91), (0.69, 0.96), (1.0, 1.0))  # fmt: skip
EFFICIENCY = 0.43  # of the memory bandwidth that the best published resident engine reaches on this model
SYNC = 0.00025  # seconds of one wait for a router; one in each streamed layer
PREFILL = 150 / 819  # prompt tokens per second and GB/s of bandwidth, as published for a resident M3 Ultra


@dataclass(frozen=True, slots=True)
class Prediction:
    """Seconds and tokens per second; `serial` without any overlap of reads and arithmetic, `overlapped` with all."""

    hit_rate: float
    read_per_token: float
    read_seconds: float
    compute_seconds: float
    serial: float
    overlapped: float


def hit_rate(share: float) -> float:
    """Expected hits with this share of a layer's experts in memory."""
    for (x0, y0), (x1, y1) in pairwise(HITS):
        if share <= x1:
            return y0 + (y1 - y0) * (share - x0) / (x1 - x0)
    return 1.0


def predict(plan: MemoryPlan, bandwidth: float, ssd: float, hits: float | None = None) -> Prediction:
    """Decode speed of a plan on a machine of these GB/s; `hits` overrides the expected rate of streamed layers."""
    g = plan.geometry
    streamed = [n for n in plan.slots if n < g.experts]
    rates = [hit_rate(n / g.experts) if hits is None else hits for n in streamed]
    read = sum(1 - rate for rate in rates) * g.top_k * g.expert_nbytes
    memory = g.trunk_nbytes + g.token_nbytes + 2 * g.state_nbytes
    compute = memory / (bandwidth * 1e9 * EFFICIENCY) + SYNC * len(streamed)
    seconds = read / (ssd * 1e9)
    overall = 1 - read / g.token_nbytes
    return Prediction(overall, read, seconds, compute, 1 / (seconds + compute), 1 / max(seconds, compute))


def predict_sweep(plan: MemoryPlan, bandwidth: float, ssd: float, tokens: int) -> tuple[float, float]:
    """(bytes read, seconds) of a prompt of so many tokens with an empty bank: reads and arithmetic overlap."""
    g = plan.geometry
    touched = g.experts * (1 - (1 - g.top_k / g.experts) ** min(tokens, plan.pass_tokens))
    passes = -(-tokens // plan.pass_tokens)
    streamed = sum(n < g.experts for n in plan.slots)
    read = passes * streamed * touched * g.expert_nbytes
    return read, max(read / (ssd * 1e9), tokens / (PREFILL * bandwidth))
