"""Replay routing traces against the eviction policy, LRU and Belady's optimum: `bench_policy.py [TRACE…]`.

A trace is an .npz of `logits`, router logits [layers, tokens, E], and `top_k` (scripts/trace_routing.py records one).
Without files, synthetic traces: logits = a fixed popularity + a slowly drifting topic + noise, in shares for which
LRU's hits, the skew and the overlap of successive tokens are like those published for models of 512 experts.
"""

import argparse
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from qwen35_local.experts import policy

SHARES = (0.05, 0.10, 0.25, 0.50)
# name: (experts, K, popularity, topic, noise, correlation from token to token, tokens between jumps of the topic)
SYNTHETIC = {
    "512 experts, top 10, published curve": (512, 10, 1.0, 1.6, 1.0, 0.97, 0),
    "512 experts, top 4, published curve": (512, 4, 1.3, 1.6, 1.0, 0.97, 0),
    "512 experts, top 10, new topic every 100 tokens": (512, 10, 0.7, 1.8, 1.0, 0.99, 100),
    "256 experts, top 8, strong skew": (256, 8, 1.8, 0.8, 1.0, 0.9, 0),
    "512 experts, top 10, nearly uniform": (512, 10, 0.3, 0.6, 1.2, 0.95, 0),
}


def synthetic(name: str, tokens: int, layers: int, seed: int = 0) -> tuple[np.ndarray, int]:
    """Router logits [layers, tokens, E] and K."""
    E, K, popularity, topic, noise, rho, jump = SYNTHETIC[name]
    rng = np.random.default_rng(seed)
    logits = np.empty((layers, tokens, E))
    for layer in range(layers):
        base, drift = rng.normal(0, popularity, E), rng.normal(0, topic, E)
        for t in range(tokens):
            fresh = rng.normal(0, topic, E)
            drift = fresh if jump and t % jump == 0 else rho * drift + np.sqrt(1 - rho**2) * fresh
            logits[layer, t] = base + drift + rng.normal(0, noise, E)
    return logits, K


def chosen(logits: np.ndarray, K: int) -> np.ndarray:
    """Expert ids [T, K], ascending, of logits [T, E]."""
    return np.sort(np.argpartition(-logits, K - 1, axis=1)[:, :K], axis=1)


def ours(logits: np.ndarray, K: int, slots: int) -> int:
    """Hits of the policy as the bank uses it, on one layer's logits [T, E]."""
    E = logits.shape[1]
    heat, cached, hits = np.zeros(E), np.zeros(E, bool), 0
    for row, step in zip(logits, chosen(logits, K), strict=True):
        policy.warm(heat, row[None])
        hits += int(cached[step].sum())
        busy = np.zeros(E, bool)
        busy[step] = True
        missing = step[~cached[step]].tolist()
        for expert, victim in policy.admit(heat, cached, busy, missing, slots - int(cached.sum())).taken:
            cached[expert] = True
            if victim >= 0:
                cached[victim] = False
    return hits


def lru(logits: np.ndarray, K: int, slots: int) -> int:
    """Least recently used, every miss admitted; within a token in the order of ids."""
    order: dict[int, None] = {}
    hits = 0
    for step in chosen(logits, K).tolist():
        for expert in step:
            if expert in order:
                hits += 1
                del order[expert]
            elif len(order) >= slots:
                del order[next(iter(order))]
            order[expert] = None
    return hits


def belady(logits: np.ndarray, K: int, slots: int) -> int:
    """The optimum: knows the future, and may let a miss pass without keeping it."""
    (T, E), ids = logits.shape, chosen(logits, K)
    upcoming = np.full(E, T + 1)
    following = np.empty(ids.shape, np.int64)
    for t in range(T - 1, -1, -1):
        following[t] = upcoming[ids[t]]
        upcoming[ids[t]] = t
    cached, hits, next_use = np.zeros(E, bool), 0, np.full(E, T + 1)
    for t, step in enumerate(ids):
        hits += int(cached[step].sum())
        next_use[step] = following[t]
        cached[step] = True
        if (held := np.flatnonzero(cached)).size > slots:
            cached[held[np.argsort(next_use[held], kind="stable")[slots:]]] = False
    return hits


def rows(traces: Iterator[tuple[str, np.ndarray, int]]) -> Iterator[dict]:
    policies: dict[str, Callable[[np.ndarray, int, int], int]] = {"ours": ours, "lru": lru, "belady": belady}
    for name, logits, K in traces:
        uses = logits.shape[0] * logits.shape[1] * K
        for share in SHARES:
            slots = max(1, round(share * logits.shape[2]))
            hits = {kind: sum(run(layer, K, slots) for layer in logits) / uses for kind, run in policies.items()}
            of_best = hits["ours"] / hits["belady"] if hits["belady"] else 1.0
            yield {"trace": name, "share": share, "slots": slots, **hits, "of_belady": of_best}


def table(found: list[dict]) -> str:
    lines = ["| trace | slots | ours | LRU | Belady | ours / Belady |", "| --- | --- | --- | --- | --- | --- |"]
    for row in found:
        lines.append(
            f"| {row['trace']} | {row['slots']} ({row['share']:.0%}) | {row['ours']:.3f} | {row['lru']:.3f} "
            f"| {row['belady']:.3f} | {row['of_belady']:.0%} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description="Replay routing traces against the eviction policy.")
    parser.add_argument("traces", nargs="*", type=Path)
    parser.add_argument("--tokens", type=int, default=500)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()

    def traces() -> Iterator[tuple[str, np.ndarray, int]]:
        for path in args.traces:
            with np.load(path) as file:
                yield path.stem, file["logits"].astype(np.float64), int(file["top_k"])
        for name in SYNTHETIC if not args.traces else ():
            yield (name, *synthetic(name, args.tokens, args.layers))

    found = list(rows(traces()))
    print(table(found))
    if args.json:
        args.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
