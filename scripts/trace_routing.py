"""Record a model's routing: `python scripts/trace_routing.py OUT.npz --model DIR --prompt TEXT --tokens 500`.

The trace, `logits` float16 [layers, tokens, E] and `top_k`, is of generated tokens and feeds scripts/bench_policy.py.
`guesses` uint16 [layers - 1, tokens, K] are what the router of every layer but the first made of the residual of the
layer before, likeliest first: what lookahead goes by.
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
        self.experts = experts
        self.seen: list[np.ndarray] = []
        self.guessed: list[np.ndarray] = []

    def expecting(self):
        """Hears what the layer before guesses of this one; nothing is read for it."""
        return lambda experts: self.guessed.append(np.array(experts, np.uint16))

    def __call__(self, routed: Routed, guess: Guess | None = None):
        if len(routed.ids) == 1:
            self.seen.append(np.array(routed.logits.astype(mx.float16))[0])
        if guess is not None:
            guess.tell(np.array(guess.ids).tolist())
        return self.experts(routed)


def record(model: str, prompts: list[str], tokens: int) -> dict[str, np.ndarray]:
    """The arrays of a trace, over all answers."""
    with qwen35_local.open(model, backend="mlx") as engine:
        recorders = []
        for layer in engine.model.layers:  # pyright: ignore[reportAttributeAccessIssue]
            layer.mlp.experts = Recorder(layer.mlp.experts)
            recorders.append(layer.mlp.experts)
        for prompt in prompts:
            engine.complete(prompt, max_tokens=tokens, seed=0)
        top_k = engine.model.config.num_experts_per_tok  # pyright: ignore[reportAttributeAccessIssue]
        return {
            "logits": np.stack([np.stack(recorder.seen) for recorder in recorders]),
            "guesses": np.stack([np.stack(recorder.guessed) for recorder in recorders[1:]]),
            "top_k": np.array(top_k),
        }


def main() -> None:
    parser = argparse.ArgumentParser(description="Record which experts a model takes.")
    parser.add_argument("out", type=Path)
    parser.add_argument("--model", default="miniature")
    parser.add_argument("--prompt", action="append", help="repeatable")
    parser.add_argument("--tokens", type=int, default=200, help="of each answer, at most")
    args = parser.parse_args()
    trace = record(args.model, args.prompt or ["Tell me a story.", "What is 17 + 25?"], args.tokens)
    np.savez_compressed(args.out, **trace)  # pyright: ignore[reportArgumentType]
    layers, seen, E = trace["logits"].shape
    print(f"{args.out}: {seen} tokens of {layers} layers, {trace['top_k']} of {E} experts each")


if __name__ == "__main__":
    main()
