"""From a trained checkpoint to the shipped files: weights, tokenizer, held-out set, scores, card."""

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch  # pyright: ignore[reportMissingImports]

from qwen35_local.chat.tokenizer import Tokenizer

from .batches import test_batches
from .export import export, released
from .families.knowledge import dictionary, facts
from .heldout import held_out
from .items import HELD_OUT, ROOT, items_of, write
from .task import Task
from .torch_model import Model, Moe, Shape
from .train import mtp_loss, run_rows, score

TARGET = ROOT / "qwen35_local" / "miniature"
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "generation_config.json")
EACH = 64  # held-out tasks of every family and mode


def ship(run: Path, shape: Shape, card: Mapping[str, Any], target: Path = TARGET) -> dict[str, Any]:
    """Write the model directory and return the card's numbers. `card` says how the training went."""
    state = torch.load(run / "checkpoint.pt")
    export(state["model"], shape, target)
    for name in TOKENIZER_FILES:
        shutil.copy(run / name, target / name)
    tasks = held_out(EACH)
    write(HELD_OUT, (item for task in tasks for item in items_of(task)))
    model = shipped_model(state["model"], shape)
    tokenizer = Tokenizer.from_dir(target)
    numbers = {
        **card,
        "steps": state["step"],
        "tokens": state["tokens"],
        "minutes": round(state["spent"] / 60),
        "plan": state["plan"],
        "parameters": sum(p.numel() for p in model.parameters()),
        "bytes": (target / "model.safetensors").stat().st_size,
        "held_out": len(tasks),
        "scores": score(model, tokenizer, tasks, precise=True),
        "mtp_top1": acceptance(model, tokenizer, tasks),
    }
    (target / "card.json").write_text(json.dumps(numbers, indent=1) + "\n")
    (target / "card.md").write_text(card_text(numbers))
    return numbers


def shipped_model(state: Mapping[str, torch.Tensor], shape: Shape) -> Model:
    """The model with exactly the values of the shipped file."""
    model = Model(shape)
    Moe.quantise = False
    prefix = "model.language_model."
    model.load_state_dict({name.removeprefix(prefix): t.float() for name, t in released(state).items()})
    return model


@torch.no_grad()
def acceptance(model: Model, tokenizer: Tokenizer, tasks: Sequence[Task]) -> float:
    """How often the MTP head's first choice for the token after next is the right one."""
    hits, seen = 0.0, 0
    for batch, _ in test_batches(tokenizer, tasks):
        hidden, _, _ = run_rows(model, batch)
        _, top1, count = mtp_loss(model, batch, hidden)
        hits, seen = hits + top1 * count, seen + count
    return round(hits / seen, 3)


def plan_steps(plan: Mapping[str, Any]) -> list[int]:
    """The plan of a card as the command line takes it."""
    return [plan["long"], plan["focus"], plan["decay"], plan["end"], *plan["again"]]


def card_text(numbers: Mapping[str, Any]) -> str:
    plan = numbers["plan"]
    rows = []
    families = sorted({name.removesuffix("+think") for name in numbers["scores"]})
    for family in families:
        plain, think = numbers["scores"][family], numbers["scores"][family + "+think"]
        rows.append(f"| {family} | {plain:.1%} | {think:.1%} |")
    languages = sorted({language for _, language, _ in dictionary()})
    words = len({word for word, _, _ in dictionary()})
    table = "\n".join(rows)
    template = (Path(__file__).parent / "card_template.md").read_text()
    return template.format(
        **{**numbers, "bytes": numbers["bytes"] / 1e6, "tokens": numbers["tokens"] / 1e6, "table": table},
        command=f"python scripts/train_miniature.py --seed {numbers['seed']} "
        f"--plan {','.join(map(str, plan_steps(plan)))}",
        facts=len(facts()),
        words=words,
        languages=", ".join(languages),
        language_count=len(languages),
    )
