"""Replay routing traces against the eviction policy, LRU and Belady's optimum: `bench_policy.py [TRACE…]`.

A trace is an .npz of `logits`, router logits [layers, tokens, E], and `top_k` (scripts/trace_routing.py records one,
with `guesses`, what lookahead would have gone by).
Without files, synthetic traces: logits = a fixed popularity + a slowly drifting topic + noise, in shares for which
LRU's hits, the skew and the overlap of successive tokens are like those published for models of 512 experts.
"""

import argparse
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from qwen35_local.experts import policy
from qwen35_local.experts.lookahead import MOST

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


def ours(logits: np.ndarray, K: int, slots: int, guesses: np.ndarray | None = None) -> int:
    """Hits of the policy as the bank uses it, on one layer's logits [T, E]. With `guesses` [T, K], likeliest first, the
    first missing ones are read before the token asks: what is on its way then is a hit, as in the bank's counters."""
    E = logits.shape[1]
    heat, cached, hits = np.zeros(E), np.zeros(E, bool), 0

    def take(heat: np.ndarray, busy: np.ndarray, missing: list[int]) -> None:
        those = np.zeros(E, bool)
        those[busy] = True
        for expert, victim in policy.admit(heat, cached, those, missing, slots - int(cached.sum())).taken:
            cached[expert] = True
            if victim >= 0:
                cached[victim] = False

    for t, (row, step) in enumerate(zip(logits, chosen(logits, K), strict=True)):
        if guesses is not None:
            missing = guesses[t][~cached[guesses[t]]][:MOST].tolist()
            hotter = heat.copy()
            hotter[missing] = heat.max() + 1.0
            take(hotter, guesses[t], missing)
        policy.warm(heat, row[None])
        hits += int(cached[step].sum())
        take(heat, step, step[~cached[step]].tolist())
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


def replay(value: np.ndarray, logits: np.ndarray, K: int, slots: int) -> int:
    """Hits if after token t those of the highest value[t] stay, of what is there and what the token used."""
    cached, hits = np.zeros(logits.shape[1], bool), 0
    for worth, step in zip(value, chosen(logits, K), strict=True):
        hits += int(cached[step].sum())
        cached[step] = True
        if (held := np.flatnonzero(cached)).size > slots:
            cached[held[np.argsort(-worth[held], kind="stable")[slots:]]] = False
    return hits


def smoothed(x: np.ndarray, keep: float) -> np.ndarray:
    out, state, weight = np.empty_like(x), np.zeros(x.shape[1]), 0.0
    for t, row in enumerate(x):
        state, weight = keep * state + (1 - keep) * row, keep * weight + 1 - keep
        out[t] = state / weight
    return out


def used(logits: np.ndarray, K: int) -> np.ndarray:
    """1 where an expert was used, [T, E]."""
    uses = np.zeros_like(logits)
    np.put_along_axis(uses, chosen(logits, K), 1.0, axis=1)
    return uses


def told(logits: np.ndarray, K: int, slots: int) -> int:
    """Ours, but told which experts the very next token will use: what no policy without foresight reaches."""
    value = smoothed(logits - logits.max(1, keepdims=True), policy.KEEP)
    value[:-1] += 1e6 * used(logits, K)[1:]
    return replay(value, logits, K, slots)


def fitted(logits: np.ndarray, K: int, slots: int) -> int:
    """Eight smoothings of logits and uses, weighted by least squares over this very trace, in hindsight."""
    centred, uses = logits - logits.mean(1, keepdims=True), used(logits, K)
    inputs = [smoothed(centred, keep) for keep in (0.3, 0.6, 0.85, 0.95, 0.99)]
    inputs += [smoothed(uses, keep) for keep in (0.8, 0.95, 0.995)]
    X = np.stack([*inputs, np.ones_like(uses)], -1)
    best = 0
    for wanted in (centred, uses):
        future = smoothed(wanted[::-1], 0.7)[::-1]
        weights = np.linalg.lstsq(X[:-1].reshape(-1, X.shape[-1]), future[1:].ravel(), rcond=None)[0]
        best = max(best, replay(X @ weights, logits, K, slots))
    return best


def learned(logits: np.ndarray, K: int, slots: int) -> int:
    """From every expert's logit now and smoothed to every expert's coming uses: a ridge regression of one layer,
    trained on four fifths of the trace and used on the fifth. For few experts: it has 3 E^2 weights."""
    uses = used(logits, K)
    now = logits - logits.max(1, keepdims=True)
    X = np.concatenate([now, smoothed(now, 0.7), smoothed(uses, 0.9), np.ones((len(now), 1))], axis=1)
    future = np.zeros_like(uses)
    future[:-1] = smoothed(uses[::-1], 0.6)[::-1][1:]
    best = 0
    for ridge in (10.0, 100.0, 1000.0):
        value = np.zeros_like(uses)
        for held_out in np.array_split(np.arange(len(X)), 5):
            train = np.setdiff1d(np.arange(len(X) - 1), held_out)
            A = X[train].T @ X[train] + ridge * np.eye(X.shape[1])
            value[held_out] = X[held_out] @ np.linalg.solve(A, X[train].T @ future[train])
        best = max(best, replay(value, logits, K, slots))
    return best


def rows(traces: Iterator[tuple[str, np.ndarray, int, np.ndarray | None]], bounds: bool = False) -> Iterator[dict]:
    for name, logits, K, guesses in traces:
        policies: dict[str, Callable[[np.ndarray, int, int], int]] = {"ours": ours, "lru": lru, "belady": belady}
        if bounds:
            policies |= {"fitted": fitted, "told": told} | ({"learned": learned} if logits.shape[2] <= 64 else {})
        uses = logits.shape[0] * logits.shape[1] * K
        for share in SHARES:
            slots = max(1, round(share * logits.shape[2]))
            hits = {kind: sum(run(layer, K, slots) for layer in logits) / uses for kind, run in policies.items()}
            if guesses is not None:  # the first layer has nobody to guess for it
                found = [ours(layer, K, slots, guess) for layer, guess in zip(logits[1:], guesses, strict=True)]
                hits["ahead"] = (sum(found) + ours(logits[0], K, slots)) / uses
            of_best = hits["ours"] / hits["belady"] if hits["belady"] else 1.0
            yield {"trace": name, "share": share, "slots": slots, **hits, "of_belady": of_best}


def table(found: list[dict]) -> str:
    more = [name for name in ("ahead", "fitted", "learned", "told") if any(name in row for row in found)]
    head = ["trace", "slots", "ours", "LRU", "Belady", "ours / Belady", *(f"{name} / Belady" for name in more)]
    lines = [f"| {' | '.join(head)} |", "| --- " * len(head) + "|"]
    for row in found:
        lines.append(
            f"| {row['trace']} | {row['slots']} ({row['share']:.0%}) | {row['ours']:.3f} | {row['lru']:.3f} "
            f"| {row['belady']:.3f} | {row['of_belady']:.0%} |"
            + "".join(f" {row[name] / row['belady']:.0%} |" if name in row else " |" for name in more)
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description="Replay routing traces against the eviction policy.")
    parser.add_argument("traces", nargs="*", type=Path)
    parser.add_argument("--tokens", type=int, default=500)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--bounds", action="store_true", help="also what hindsight, learning and foresight would reach")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()

    def traces() -> Iterator[tuple[str, np.ndarray, int, np.ndarray | None]]:
        for path in args.traces:
            with np.load(path) as file:
                guesses = file.get("guesses")
                yield path.stem, file["logits"].astype(np.float64), int(file["top_k"]), guesses
        for name in SYNTHETIC if not args.traces else ():
            yield (name, *synthetic(name, args.tokens, args.layers), None)

    found = list(rows(traces(), args.bounds))
    print(table(found))
    if args.json:
        args.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
