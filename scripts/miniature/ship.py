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
from .families.pictures import WORDS
from .heldout import held_out, held_out_sights
from .items import HELD_OUT, HELD_OUT_SIGHTS, ROOT, items_of, write
from .task import Task
from .torch_model import Model, Moe, Shape
from .torch_vision import VisionShape
from .train import JointPlan, mtp_loss, run_rows, score

TARGET = ROOT / "qwen35_local" / "miniature"
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "generation_config.json")
EACH = 64  # held-out tasks of every family and mode
SIGHTS = 40  # the same, about pictures


def ship(
    run: Path, text: Path, shape: Shape, vision: VisionShape, card: Mapping[str, Any], target: Path = TARGET
) -> dict[str, Any]:
    """Write the model directory and return the card's numbers.

    `run` has the checkpoints of the later stages, `text` is that of the first. `card` says how the training went.
    """
    state = torch.load(run / "checkpoint.pt")
    export(state["model"], shape, vision, target)
    for name in TOKENIZER_FILES:
        shutil.copy(run / name, target / name)
    said, shown = held_out(EACH), held_out_sights(SIGHTS)
    for file, tasks in ((HELD_OUT, said), (HELD_OUT_SIGHTS, shown)):
        write(file, (item for task in tasks for item in items_of(task)))
    model = shipped_model(state["model"], shape, vision)
    tokenizer = Tokenizer.from_dir(target)
    numbers = {
        **card,
        "text": stage(torch.load(text)),
        "tower": {"steps": torch.load(run / "tower.pt")["step"]},
        "joint": stage(state),
        "parameters": sum(p.numel() for p in model.parameters()),
        "tower_parameters": sum(p.numel() for p in model.visual.parameters()),
        "bytes": (target / "model.safetensors").stat().st_size,
        "held_out": len(said),
        "held_out_sights": len(shown),
        "scores": score(model, tokenizer, [*said, *shown], precise=True),
        "mtp_top1": acceptance(model, tokenizer, [*said, *shown]),
    }
    (target / "card.json").write_text(json.dumps(numbers, indent=1) + "\n")
    (target / "card.md").write_text(card_text(numbers))
    return numbers


def stage(state: Mapping[str, Any]) -> dict[str, Any]:
    """How long a stage was, and by which steps it went."""
    plan = state["plan"]
    steps = JointPlan(tuple(plan["phases"])).text if "phases" in plan else text_steps(plan)
    return {"steps": state["step"], "tokens": state["tokens"], "minutes": round(state["spent"] / 60), "plan": steps}


def text_steps(plan: Mapping[str, Any]) -> str:
    again = plan.get("again", ())
    ends = [again] if isinstance(again, int) else again
    return ",".join(str(step) for step in (plan["long"], plan["focus"], plan["decay"], plan["end"], *ends))


def shipped_model(state: Mapping[str, torch.Tensor], shape: Shape, vision: VisionShape) -> Model:
    """The model with exactly the values of the shipped file."""
    model = Model(shape, vision)
    Moe.quantise = False
    values = {
        name.removeprefix("model.").removeprefix("language_model."): t.float() for name, t in released(state).items()
    }
    model.load_state_dict(values)
    return model


@torch.no_grad()
def acceptance(model: Model, tokenizer: Tokenizer, tasks: Sequence[Task]) -> float:
    """How often the MTP head's first choice for the token after next is the right one."""
    hits, seen = 0.0, 0
    for batch, _ in test_batches(tokenizer, tasks):
        hidden, _, embedded = run_rows(model, batch)
        _, top1, count = mtp_loss(model, batch, hidden, embedded)
        hits, seen = hits + top1 * count, seen + count
    return round(hits / seen, 3)


def table(scores: Mapping[str, float], seeing: bool) -> str:
    """Rows of the card: family, without and with thinking."""
    families = sorted({name.removesuffix("+think") for name in scores if name.startswith("see ") == seeing})
    rows = (
        f"| {name.removeprefix('see ')} | {scores[name]:.1%} | {scores[name + '+think']:.1%} |" for name in families
    )
    return "\n".join(rows)


def commands(numbers: Mapping[str, Any]) -> str:
    """The three stages, as typed."""
    start = f"python scripts/train_miniature.py --seed {numbers['seed']}"
    plans = {name: numbers[name]["plan"] for name in ("text", "joint")}
    later = "--text runs/miniature/checkpoint.pt --run runs/miniature-v2"
    lines = (
        f"{start} --plan {plans['text']}",
        f"{start} --stage tower --steps {numbers['tower']['steps']} {later}",
        f"{start} --stage joint --plan {plans['joint']} {later}",
    )
    return "\n".join(f"    {line}" for line in lines)


def card_text(numbers: Mapping[str, Any]) -> str:
    languages = sorted({language for _, language, _ in dictionary()})
    words = len({word for word, _, _ in dictionary()})
    template = (Path(__file__).parent / "card_template.md").read_text()
    return template.format(
        **{**numbers, "bytes": numbers["bytes"] / 1e6},
        heard=table(numbers["scores"], seeing=False),
        seen=table(numbers["scores"], seeing=True),
        commands=commands(numbers),
        facts=len(facts()),
        words=words,
        languages=", ".join(languages),
        language_count=len(languages),
        tokens={name: numbers[name]["tokens"] / 1e6 for name in ("text", "joint")},
        drawn=len(WORDS),
    )
