"""Train the miniature in three stages (text, tower, joint); the last exports, scores and writes the card.

python scripts/train_miniature.py --minutes 90           # a run limited by time
python scripts/train_miniature.py --plan 1500,1800,2700,4500  # the same steps again
python scripts/train_miniature.py --stage tower --steps 3000  # first lessons of the vision tower
"""

import argparse
import os
import shutil
import sys
from pathlib import Path

import torch  # pyright: ignore[reportMissingImports]
import torch.distributed as dist  # pyright: ignore[reportMissingImports]
import torch.multiprocessing as mp  # pyright: ignore[reportMissingImports]

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from qwen35_local.chat.tokenizer import Tokenizer  # noqa: E402
from scripts.miniature import tokenizer as bpe  # noqa: E402
from scripts.miniature.batches import Batch, batch_at, joint_batch  # noqa: E402
from scripts.miniature.heldout import held_out, held_out_sights  # noqa: E402
from scripts.miniature.ship import TOKENIZER_FILES, ship  # noqa: E402
from scripts.miniature.torch_model import Model, Shape, kernels  # noqa: E402
from scripts.miniature.torch_vision import VisionShape  # noqa: E402
from scripts.miniature.tower import Student, calibrated, learn  # noqa: E402
from scripts.miniature.train import JointPlan, Plan, reached, train  # noqa: E402

# glibc otherwise returns every large tensor to the system and pays for its pages again: a fifth of the time.
MALLOC = {
    "MALLOC_MMAP_THRESHOLD_": str(1 << 32),
    "MALLOC_TRIM_THRESHOLD_": str(1 << 34),
    "MALLOC_TOP_PAD_": str(1 << 28),
}
WORKERS = 2  # part of the recipe: each draws its own half of every batch


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stage", choices=("text", "tower", "joint"), default="text")
    parser.add_argument("--steps", type=int, default=3000, help="of the tower's first lessons")
    parser.add_argument("--text", type=Path, help="for the later stages: the checkpoint of the text stage")
    parser.add_argument("--seed", type=int, default=35)
    parser.add_argument("--minutes", type=float, default=90, help="training time; the phases follow from it")
    plan_help = (
        "steps. text: long rows from, second mix from, decay from, end[, ends of further decays]; overrides --minutes. "
        "joint: decay from and end of every phase; END/STEP breaks it off at STEP"
    )
    parser.add_argument("--plan", help=plan_help)
    parser.add_argument("--run", type=Path, default=ROOT / "runs" / "miniature", help="checkpoints and log")
    parser.add_argument("--machine", default="2 CPU cores", help="where it runs, for the card")
    parser.add_argument("--remarks", default="", help="a paragraph for the card, under the scores")
    parser.add_argument("--ship-only", action="store_true", help="no training: ship the checkpoint of --run as it is")
    parser.add_argument("--eager", action="store_true", help="do not compile the element-wise pieces")
    options = parser.parse_args()
    if any(os.environ.get(name) != value for name, value in MALLOC.items()):  # read only at the start of a process
        os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | MALLOC)

    options.run.mkdir(parents=True, exist_ok=True)
    if not (options.run / "tokenizer.json").exists():
        if options.stage == "text":
            bpe.save(bpe.train(options.seed), options.run)
        else:
            for name in TOKENIZER_FILES:
                shutil.copy(options.text.parent / name, options.run / name)
    if not options.ship_only:
        mp.spawn({"text": work, "tower": look, "joint": see}[options.stage], (options,), WORKERS)
    if options.stage != "joint":
        return
    torch.set_num_threads(WORKERS)
    card = {"seed": options.seed, "machine": options.machine, "remarks": options.remarks}
    numbers = ship(options.run, options.text, Shape(), VisionShape(), card)
    print(numbers["scores"], numbers["mtp_top1"])


def join(worker: int, options: argparse.Namespace) -> None:
    """Become a worker: a process with one thread, so that a busy machine slows it but never stalls it."""
    torch.set_num_threads(1)
    torch.manual_seed(options.seed)
    rendezvous = f"file://{(options.run / f'rendezvous-{os.getppid()}').resolve()}"
    dist.init_process_group("gloo", init_method=rendezvous, rank=worker, world_size=WORKERS)


def look(worker: int, options: argparse.Namespace) -> None:
    """The tower's first lessons."""
    join(worker, options)
    embeddings = torch.load(options.text)["model"]["embed_tokens.weight"]
    student = Student(VisionShape(), embeddings, Tokenizer.from_dir(options.run))
    learn(student, options.seed, options.steps, options.run)
    dist.destroy_process_group()


def see(worker: int, options: argparse.Namespace) -> None:
    """Teach the text model to read what the tower shows, beside rehearsing its text."""
    join(worker, options)
    if not options.eager:
        kernels.compile()
    tokenizer = Tokenizer.from_dir(options.run)
    plan = JointPlan.parse(options.plan)
    text = torch.load(options.text)["model"]
    student = Student(VisionShape(), text["embed_tokens.weight"], tokenizer)
    student.load_state_dict(torch.load(options.run / "tower.pt")["student"])
    model = Model(Shape())
    model.load_state_dict(text)
    # The tower stays as its lessons left it: the first gradients of the joint training would wreck it.
    model.visual = calibrated(student, text["embed_tokens.weight"], options.seed).requires_grad_(False)

    def draw(step: int) -> Batch:
        return joint_batch(tokenizer, options.seed, step, worker, plan.phase(step))

    # Not the set that is reported: what to train more is decided by these scores.
    tests = [*held_out(8, seed=398), *held_out_sights(12, seed=398)]
    result = train(model, tokenizer, draw, plan, None, options.run, tests, test_every=200)
    if worker == 0:
        print(result)
    dist.destroy_process_group()


def work(worker: int, options: argparse.Namespace) -> None:
    """Train the text model."""
    join(worker, options)
    if not options.eager:
        kernels.compile()
    tokenizer = Tokenizer.from_dir(options.run)
    plan = Plan.of(*map(int, options.plan.split(","))) if options.plan else Plan()
    model = Model(Shape())
    if worker == 0:
        print(f"{sum(p.numel() for p in model.parameters()):,} parameters", flush=True)
    minutes = None if options.plan else options.minutes

    def draw(step: int) -> Batch:
        return batch_at(tokenizer, options.seed, step, worker, reached(plan.long, step), plan.mix(step))

    result = train(model, tokenizer, draw, plan, minutes, options.run, held_out(20))
    if worker == 0:
        print(result)
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
