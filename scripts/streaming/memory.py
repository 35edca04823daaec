"""Peak memory of the streaming benchmark: a fresh process under each budget, with the engine's session and plan."""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parents[2]


def memory(path: Path, prompt: int, tokens: int, budgets: tuple[str, ...]) -> dict[str, Any]:
    """A prompt and so many tokens of the checkpoint in `path` under every budget."""
    rows = []
    for budget in budgets:
        command = [sys.executable, __file__, str(path), budget, str(prompt), str(tokens)]
        said = subprocess.run(command, capture_output=True, text=True, check=False)
        rows.append(
            json.loads(said.stdout) if said.returncode == 0 else {"budget": budget, "error": said.stderr[-300:]}
        )
    used = [row.get("of_budget", 9.0) for row in rows]
    size = sum(f.stat().st_size for f in path.glob("*.safetensors"))
    return {
        "asked": "peak RSS at most 1.03 of a budget below a third of the checkpoint",
        "found": f"{size / 1e6:.0f} MB: "
        + ", ".join(f"{share:.2f} of {budget}" for share, budget in zip(used, budgets, strict=True)),
        "rows": rows,
        "passed": max(used) <= 1.03 and all(3 * row.get("budget", size) <= size for row in rows if "error" not in row),
    }


def child(path: Path, budget: str, prompt: int, tokens: int) -> dict[str, Any]:
    """One process: no tokenizer, random ids."""
    sys.path += [str(ROOT), str(ROOT / "tests")]
    from tiny import opened

    from qwen35_local.backends.memory import expert_layouts, open_stream, plan_memory
    from qwen35_local.backends.mlx_session import MlxSession
    from qwen35_local.backends.prefix import Landmarks
    from qwen35_local.config import Streaming
    from qwen35_local.model.qwen35 import Qwen35

    ids = np.random.default_rng(1).integers(0, 2000, prompt + tokens).tolist()
    weights, config = opened(path)
    layouts = expert_layouts(path, weights, config.text)
    chosen = plan_memory(layouts, weights, config, budget, prompt + tokens)
    stream = open_stream(layouts, config.text, chosen, Streaming(direct=True, elastic=False))
    model = Qwen35(weights, config.text, stream.experts)
    stream.fill()
    session = MlxSession(model, Landmarks(-1, -1, -1), chosen.pass_tokens, stream)
    del weights
    for _ in session.sync(ids[:prompt]):
        pass
    after_prompt = peak()
    for token in ids[prompt:]:
        session.logits()
        session.advance(token)
    session.logits()
    stream.close()
    return {
        "budget": chosen.budget,
        "planned": chosen.total,
        "slots": min(chosen.slots),
        "pass_tokens": chosen.pass_tokens,
        "peak_after_prompt": after_prompt,
        "peak": peak(),
        "of_budget": peak() / chosen.budget,
        **session.stats()["experts"],
    }


def peak() -> int:
    """Bytes of resident memory at the highest so far."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024


def main() -> None:
    parser = argparse.ArgumentParser(description="Print the peak memory of one prompt and its tokens as JSON.")
    parser.add_argument("path", type=Path)
    parser.add_argument("budget")
    parser.add_argument("prompt", type=int)
    parser.add_argument("tokens", type=int)
    args = parser.parse_args()
    print(json.dumps(child(args.path, args.budget, args.prompt, args.tokens)))


if __name__ == "__main__":
    main()
