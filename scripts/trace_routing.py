"""Record a model's routing: `python scripts/trace_routing.py OUT.npz --model DIR --prompt TEXT --tokens 500`.

The trace, `logits` float16 [layers, tokens, E] and `top_k`, is of generated tokens and feeds scripts/bench_policy.py.
"""

import argparse
from pathlib import Path

import mlx.core as mx
import numpy as np

import qwen35_local
from qwen35_local.model.moe import Experts, Guess, Routed


class Recorder:
    """Stands before a layer's experts and writes down what the router said."""

    def __init__(self, experts: Experts):
        self.experts, self.expect = experts, experts.expect
        self.seen: list[np.ndarray] = []

    def __call__(self, routed: Routed, guess: Guess | None = None):
        if len(routed.ids) == 1:
            self.seen.append(np.array(routed.logits.astype(mx.float16))[0])
        return self.experts(routed, guess)


def record(model: str, prompts: list[str], tokens: int) -> tuple[np.ndarray, int]:
    """Router logits [layers, tokens, E] over all answers, and K."""
    with qwen35_local.open(model, backend="mlx") as engine:
        recorders = []
        for layer in engine.model.layers:  # pyright: ignore[reportAttributeAccessIssue]
            layer.mlp.experts = Recorder(layer.mlp.experts)
            recorders.append(layer.mlp.experts)
        for prompt in prompts:
            engine.complete(prompt, max_tokens=tokens, seed=0)
        top_k = engine.model.config.num_experts_per_tok  # pyright: ignore[reportAttributeAccessIssue]
        return np.stack([np.stack(recorder.seen) for recorder in recorders]), top_k


def main() -> None:
    parser = argparse.ArgumentParser(description="Record which experts a model takes.")
    parser.add_argument("out", type=Path)
    parser.add_argument("--model", default="miniature")
    parser.add_argument("--prompt", action="append", help="repeatable")
    parser.add_argument("--tokens", type=int, default=200, help="of each answer, at most")
    args = parser.parse_args()
    logits, top_k = record(args.model, args.prompt or ["Tell me a story.", "What is 17 + 25?"], args.tokens)
    np.savez_compressed(args.out, logits=logits, top_k=top_k)
    print(
        f"{args.out}: {logits.shape[1]} tokens of {logits.shape[0]} layers, {top_k} of {logits.shape[2]} experts each"
    )


if __name__ == "__main__":
    main()
