"""Write tests/golden/{tiny,vision,drawn}.npz: what transformers computes on the tiny checkpoints ([oracle] extra).

For each case: `<case>.ids` [T], `<case>.logits` float32 [T, V] of one forward pass, and for the first also
`<case>.greedy`, 32 tokens continued from all of ids. Provenance goes into tests/golden/{tiny,vision}.json.

With pictures (vision_cases.py): `features.<grid>` of the tower, and for each case, also with YaRN, `<case>.positions`
[3, T], `<case>.delta`, `<case>.logits` and `<case>.greedy`. `drawn` has prompts whose pictures are made of pixels.

tests/golden/tiny_decode.npz is a longer run of the F32 checkpoint: `ids` [200] with `logits` [200, V], then 64 greedy
tokens `said`, each chosen from a row of `steps` [64, V] (row 0 is the last of `logits`).
"""

import json
import tempfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch  # pyright: ignore[reportMissingImports]
import transformers  # pyright: ignore[reportMissingImports]
from make_checkpoint import SPECIAL_TOKENS, write
from transformers import (  # pyright: ignore[reportMissingImports]
    Qwen3_5MoeForCausalLM,
    Qwen3_5MoeForConditionalGeneration,
)
from vision_cases import CASES as SHOWN
from vision_cases import DRAWN, GREEDY, GRIDS, IMAGE_PAD, VIDEO_PAD, Shown, prompt

GOLDEN = Path(__file__).parent.parent / "tests" / "golden"
PROMPT, STEPS = 200, 64
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
    write_arrays("tiny", arrays)
    write_arrays("tiny_decode", decoded())
    yarn = vision(("image-and-video",), "yarn4.", 4.0)
    write_arrays("vision", tower() | vision(SHOWN) | yarn)
    write_arrays("drawn", vision(DRAWN))


def write_arrays(name: str, arrays: dict[str, np.ndarray]) -> None:
    np.savez_compressed(GOLDEN / f"{name}.npz", **arrays)  # pyright: ignore[reportArgumentType]
    versions = {"transformers": transformers.__version__, "torch": torch.__version__, "numpy": np.__version__}
    provenance = {"made_by": "scripts/make_golden.py", "arithmetic": "float32 on CPU, eager attention", **versions}
    (GOLDEN / f"{name}.json").write_text(json.dumps(provenance, indent=1) + "\n")


def seeing(directory: str, yarn: float = 1.0) -> torch.nn.Module:
    path = write(Path(directory), "tiny", "F32", yarn=yarn, vision=True)
    return Qwen3_5MoeForConditionalGeneration.from_pretrained(path, dtype=torch.float32, attn_implementation="eager")


def tower() -> dict[str, np.ndarray]:
    """What the tower makes of grids of every shape."""
    with tempfile.TemporaryDirectory() as directory, torch.no_grad():
        whole = seeing(directory)
        return {f"features.{'x'.join(map(str, grid))}": features(whole, Shown(grid)) for grid in GRIDS}


def vision(cases: Iterable[str], prefix: str = "", yarn: float = 1.0) -> dict[str, np.ndarray]:
    """What transformers makes of prompts with pictures."""
    arrays = {}
    with tempfile.TemporaryDirectory() as directory, torch.no_grad():
        whole = seeing(directory, yarn)
        for case in cases:
            ids, shown, _ = prompt(case)
            options = shown_to(shown)
            positions, delta = whole.model.get_rope_index(
                torch.tensor(ids[None].astype(np.int64)), kinds(ids), options.get("image_grid_thw"),
                options.get("video_grid_thw"),
            )  # fmt: skip
            arrays[f"{prefix}{case}.positions"] = positions[:, 0].numpy().astype(np.int32)
            arrays[f"{prefix}{case}.delta"] = np.array(int(delta), np.int32)
            tokens = ids.tolist()
            for step in range(GREEDY + 1):
                whole.model.rope_deltas = None
                given = np.array(tokens)
                logits = whole(torch.tensor(given[None]), mm_token_type_ids=kinds(given), **options).logits[0].numpy()
                if step == 0:
                    arrays[f"{prefix}{case}.logits"] = logits
                tokens.append(int(logits[-1].argmax()))
            arrays[f"{prefix}{case}.greedy"] = np.array(tokens[len(ids) : len(ids) + GREEDY], np.int32)
    return arrays


def kinds(ids: np.ndarray) -> torch.Tensor:
    """0 for text, 1 for pictures, 2 for clips."""
    return torch.tensor(((ids == IMAGE_PAD) + 2 * (ids == VIDEO_PAD))[None].astype(np.int32))


def features(whole: torch.nn.Module, it: Shown) -> np.ndarray:
    found = whole.model.get_image_features(torch.tensor(it.patches()), torch.tensor([it.grid])).pooler_output
    return torch.cat(list(found)).numpy()


def shown_to(shown: list[Shown]) -> dict[str, torch.Tensor]:
    options = {}
    for clip, pixels, grids in (
        (False, "pixel_values", "image_grid_thw"),
        (True, "pixel_values_videos", "video_grid_thw"),
    ):
        if some := [it for it in shown if it.clip == clip]:
            options[pixels] = torch.tensor(np.concatenate([it.patches() for it in some]))
            options[grids] = torch.tensor([it.grid for it in some])
    return options


def decoded() -> dict[str, np.ndarray]:
    """Prefill and greedy decoding without a cache: every step is a forward pass over everything before it."""
    with tempfile.TemporaryDirectory() as directory:
        path = write(Path(directory), "tiny", "F32")
        model = Qwen3_5MoeForCausalLM.from_pretrained(path, dtype=torch.float32, attn_implementation="eager")
    ids = np.random.default_rng(2).integers(0, model.config.vocab_size - SPECIAL_TOKENS, PROMPT)
    with torch.no_grad():
        rows = model(torch.tensor(ids[None])).logits[0].numpy()
        said = greedy(model, ids, STEPS)
        steps = model(torch.tensor([[*ids, *said[:-1]]])).logits[0, PROMPT - 1 :].numpy()
    assert (steps.argmax(1) == said).all()
    return {"ids": ids.astype(np.int32), "logits": rows, "said": said, "steps": steps}


def greedy(model: torch.nn.Module, ids: np.ndarray, count: int) -> np.ndarray:
    """Continuation without any cache: each token from a forward pass over everything before it."""
    tokens = list(ids)
    for _ in range(count):
        tokens.append(int(model(torch.tensor([tokens])).logits[0, -1].argmax()))
    return np.array(tokens[len(ids) :], dtype=np.int32)


if __name__ == "__main__":
    main()
