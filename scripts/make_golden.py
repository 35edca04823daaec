"""Write tests/golden/tiny.npz: logits of transformers on the tiny random checkpoints (needs the [oracle] extra).

For each case: `<case>.ids` [T], `<case>.logits` float32 [T, V] of one forward pass, and for the first also
`<case>.greedy`, 32 tokens continued from all of ids. Provenance goes into tests/golden/tiny.json.
"""

import json
import tempfile
from pathlib import Path

import numpy as np
import torch  # pyright: ignore[reportMissingImports]
import transformers  # pyright: ignore[reportMissingImports]
from make_checkpoint import SPECIAL_TOKENS, write
from transformers import Qwen3_5MoeForCausalLM  # pyright: ignore[reportMissingImports]

GOLDEN = Path(__file__).parent.parent / "tests" / "golden"
CASES = {"F32": ("F32", 1.0, 130), "F32-yarn4": ("F32", 4.0, 70), "BF16": ("BF16", 1.0, 130)}


def main() -> None:
    arrays = {}
    for case, (dtype, yarn, length) in CASES.items():
        with tempfile.TemporaryDirectory() as directory:
            path = write(Path(directory), "tiny", dtype, yarn=yarn)
            model = Qwen3_5MoeForCausalLM.from_pretrained(path, dtype=torch.float32, attn_implementation="eager")
        ids = np.random.default_rng(1).integers(0, model.config.vocab_size - SPECIAL_TOKENS, length)
        with torch.no_grad():
            arrays[f"{case}.ids"] = ids.astype(np.int32)
            arrays[f"{case}.logits"] = model(torch.tensor(ids[None])).logits[0].numpy()
            if not any(name.endswith(".greedy") for name in arrays):
                arrays[f"{case}.greedy"] = greedy(model, ids, 32)
    np.savez_compressed(GOLDEN / "tiny.npz", **arrays)
    versions = {"transformers": transformers.__version__, "torch": torch.__version__, "numpy": np.__version__}
    provenance = {"made_by": "scripts/make_golden.py", "arithmetic": "float32 on CPU, eager attention", **versions}
    (GOLDEN / "tiny.json").write_text(json.dumps(provenance, indent=1) + "\n")


def greedy(model: torch.nn.Module, ids: np.ndarray, count: int) -> np.ndarray:
    """Continuation without any cache: each token from a forward pass over everything before it."""
    tokens = list(ids)
    for _ in range(count):
        tokens.append(int(model(torch.tensor([tokens])).logits[0, -1].argmax()))
    return np.array(tokens[len(ids) :], dtype=np.int32)


if __name__ == "__main__":
    main()
