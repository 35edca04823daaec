"""The training loop: warm-up, constant rate, linear decay; MTP and MXFP4-aware training join in the decay."""

import json
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path

import torch  # pyright: ignore[reportMissingImports]
import torch.distributed as dist  # pyright: ignore[reportMissingImports]
import torch.nn.functional as F  # pyright: ignore[reportMissingImports]

from qwen35_local.chat.tokenizer import Tokenizer

from .batches import Batch, test_batches
from .optim import Optimiser
from .task import Task
from .torch_model import Model, Moe, Rows, kernels

WARMUP = 40
BALANCE = 0.01
# Shares of the time: when long rows begin, the second mix, and the decay.
LONG_AT, FOCUS_AT, DECAY_AT = 0.35, 0.42, 0.62
# Shares of the decay: when the MTP head joins, and the rounding of the experts.
MTP_AT, QAT_AT = 0.2, 0.6
FLOOR = 0.02  # of the rate, at the end
AGAIN = 0.4  # of the rate, where a further decay begins
# Of the rate, in each phase with pictures: at first gently, then high enough to learn to read them, then to settle.
JOINT_RATES = (0.4, 0.8, 0.5, 0.6, 0.5, 0.5)


@dataclass
class Plan:
    """Step numbers at which a phase begins; None is not known yet (a run limited by time finds out as it goes)."""

    long: int | None = None
    focus: int | None = None
    decay: int | None = None
    end: int | None = None
    again: tuple[int, ...] = ()  # the ends of further, lower decays

    @classmethod
    def of(cls, long: int, focus: int, decay: int, end: int, *again: int) -> "Plan":
        return cls(long, focus, decay, end, again)

    @property
    def steps(self) -> list[int | None]:
        return [self.long, self.focus, self.decay, self.end]

    def take(self, steps: Iterable[int | None]) -> None:
        self.long, self.focus, self.decay, self.end = steps

    def settle(self, step: int, elapsed: float, minutes: float, rate: float) -> None:
        """Fix what the clock has reached; `rate` is seconds per step."""
        share = elapsed / (60 * minutes)
        if self.long is None and share >= LONG_AT:
            self.long = step
        if self.focus is None and share >= FOCUS_AT:
            self.focus = step
        if self.decay is None and share >= DECAY_AT:
            self.decay = step
            # MTP and rounding cost about a tenth on top.
            self.end = step + int((60 * minutes - elapsed) / (1.1 * rate))

    @property
    def last(self) -> int | None:
        return self.again[-1] if self.again else self.end

    def mix(self, step: int) -> int:
        """Which mix a step draws from: the second begins before the decay, each further decay has the next."""
        return sum(reached(begin, step) for begin in (self.focus, self.end, *self.again))

    def within(self, step: int, share: float) -> bool:
        """Is the decay past this share of itself?"""
        return self.decay is not None and self.end is not None and step >= self.decay + share * (self.end - self.decay)

    def heads(self, step: int) -> bool:
        """Does the MTP head learn?"""
        return self.within(step, MTP_AT)

    def rounds(self, step: int) -> bool:
        """Are the experts rounded?"""
        return self.within(step, QAT_AT)

    def scale(self, step: int) -> float:
        if step < WARMUP:
            return (step + 1) / WARMUP
        if self.decay is None or self.end is None or step < self.decay:
            return 1.0
        for begin, end in pairwise((self.end, *self.again)):
            if begin <= step < end:
                return FLOOR + (AGAIN - FLOOR) * (end - step) / (end - begin)
        return FLOOR + (1 - FLOOR) * (self.end - step) / (self.end - self.decay)


@dataclass
class JointPlan:
    """Of the training with pictures: in each phase a constant rate, then a linear decay; experts always rounded."""

    phases: tuple[tuple[int, int, int], ...]  # (step of decay, step at which it would reach the floor, last step)

    @classmethod
    def parse(cls, text: str) -> "JointPlan":
        """From "decay,end" of every phase; an end "5000/4000" breaks the phase off at step 4000."""
        steps = text.split(",")
        ends = ([int(step) for step in end.split("/")] for end in steps[1::2])
        return cls(tuple((int(decay), end[0], end[-1]) for decay, end in zip(steps[::2], ends, strict=True)))

    @property
    def text(self) -> str:
        ends = (f"{decay},{end}" + (f"/{last}" if last != end else "") for decay, end, last in self.phases)
        return ",".join(ends)

    @property
    def last(self) -> int:
        return self.phases[-1][-1]

    def phase(self, step: int) -> int:
        """Which phase a step is in, from 0; it also says which mix is drawn."""
        return min(sum(step >= last for *_, last in self.phases), len(self.phases) - 1)

    def heads(self, step: int) -> bool:
        return step >= self.phases[self.phase(step)][0]

    def rounds(self, step: int) -> bool:
        return True

    def scale(self, step: int) -> float:
        phase = self.phase(step)
        begin = self.phases[phase - 1][-1] if phase else 0
        decay, end, _ = self.phases[phase]
        rise = min((step - begin + 1) / WARMUP, 1.0)
        return JOINT_RATES[phase] * rise * min(1.0, FLOOR + (1 - FLOOR) * (end - step) / max(end - decay, 1))


def reached(at: int | None, step: int) -> bool:
    return at is not None and step >= at


def run_rows(model: Model, batch: Batch) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Hidden states of the rows (after their prefix, if any), load-balancing loss, and what the rows embedded."""
    past, before, balance = None, None, 0.0
    if batch.prefix:
        ids, before = batch.prefix
        _, past, balance = model(model.embed(ids), Rows.of(model.shape, before))
        copies = len(batch.ids) // len(ids)
        past = [tuple(t.repeat_interleave(copies, 0) for t in state) for state in past]
        before = before.repeat_interleave(copies, 0)
    rows = Rows.of(model.shape, batch.segments, before, batch.positions)
    embedded = model.embed(batch.ids, batch.pictures, batch.pads)
    hidden, _, more = model(embedded, rows, past)
    return hidden, balance + more, embedded


def losses(model: Model, batch: Batch, mtp: bool) -> tuple[torch.Tensor, dict[str, float]]:
    """The loss to descend, and figures of it."""
    with torch.autocast("cpu", dtype=torch.bfloat16):
        hidden, balance, embedded = run_rows(model, batch)
        where = batch.weight.nonzero(as_tuple=True)
        logits = model.lm_head(hidden[where]).float()
    ids, weight = batch.ids, batch.weight[where]
    row, column = where
    ce = F.cross_entropy(logits, ids[row, column + 1], reduction="none")
    loss = (ce * weight).sum() / weight.sum()
    figures = {"loss": loss.item()}
    total = loss + BALANCE * balance
    if mtp:
        extra, accepted, _ = mtp_loss(model, batch, hidden, embedded)
        total = total + extra
        figures |= {"mtp": extra.item(), "mtp_top1": accepted}
    return total, figures


def mtp_loss(
    model: Model, batch: Batch, hidden: torch.Tensor, embedded: torch.Tensor
) -> tuple[torch.Tensor, float, int]:
    """Loss of the MTP head, which learns from the trunk without changing it; top-1 agreement, and on how many."""
    nexts = embedded.detach().roll(-1, 1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rows = Rows.of(model.shape, batch.segments, positions=batch.positions)
        h, balance = model.mtp(hidden.detach(), nexts, rows)
        both = (batch.weight > 0) & (
            batch.weight.roll(-1, 1) > 0
        )  # this token's successor and the one after are written
        both[:, -2:] = False
        row, column = both.nonzero(as_tuple=True)
        logits = F.linear(h[row, column], model.lm_head.weight.detach()).float()
    wanted = batch.ids[row, column + 2]
    loss = F.cross_entropy(logits, wanted)
    return loss + BALANCE * balance, (logits.argmax(-1) == wanted).float().mean().item(), len(wanted)


@torch.no_grad()
def score(model: Model, tokenizer: Tokenizer, tasks: Sequence[Task], precise: bool = False) -> dict[str, float]:
    """Exact match under greedy decoding, thought included, in one teacher-forced pass."""
    right, seen = Counter(), Counter()
    for batch, content in test_batches(tokenizer, tasks):
        with kernels.eager(), torch.autocast("cpu", dtype=torch.bfloat16, enabled=not precise):
            hidden, _, _ = run_rows(model, batch)
            guess = model.lm_head(hidden).argmax(-1)
        wrong = (guess != batch.ids.roll(-1, 1)) & (batch.weight > 0)
        for row, tasks_of_row in enumerate(content):
            for number, index in enumerate(tasks_of_row, 1):
                task = tasks[index]
                family = f"{task.family}{'+think' if task.thinking else ''}"
                seen[family] += 1
                right[family] += not bool((wrong[row] & (batch.segments[row] == number)).any())
    return {family: round(right[family] / seen[family], 3) for family in sorted(seen)}


def average_gradients(model: torch.nn.Module) -> None:
    """The mean over the workers; every worker then takes the same step on its own copy."""
    grads = [p.grad for p in model.parameters() if p.grad is not None]
    flat = torch.cat([g.flatten() for g in grads])
    dist.all_reduce(flat)
    flat /= dist.get_world_size()
    for g, piece in zip(grads, flat.split([g.numel() for g in grads]), strict=True):
        g.copy_(piece.view_as(g))


def agree(plan: Plan) -> None:
    """All workers take the plan of the first, whose clock counts."""
    values = torch.tensor([-1 if value is None else value for value in plan.steps])
    dist.broadcast(values, 0)
    plan.take(None if value < 0 else value for value in values.tolist())


def train(
    model: Model,
    tokenizer: Tokenizer,
    draw: Callable[[int], Batch],
    plan: Plan | JointPlan,
    minutes: float | None,
    folder: Path,
    tests: Sequence[Task],
    test_every: int = 400,
) -> dict[str, object]:
    """Train until the plan ends, resuming from `folder`; returns what the card should say. Runs in every worker.

    `draw` gives this worker's batch of a step.
    """
    optimiser = Optimiser(model)
    worker, workers = dist.get_rank(), dist.get_world_size()
    step, tokens, spent = 0, 0, 0.0
    saved = folder / "checkpoint.pt"
    if saved.exists():
        state = torch.load(saved)
        model.load_state_dict(state["model"])
        optimiser.load(state["optimiser"])
        step, tokens, spent = state["step"], state["tokens"], state["spent"]
        if minutes is not None and isinstance(plan, Plan):  # an explicit plan wins
            plan.take(state["plan"][key] for key in ("long", "focus", "decay", "end"))
    began, last_save, rates = time.monotonic() - spent, time.monotonic(), []

    def say(**values: object) -> None:
        if worker:
            return
        elapsed = round((time.monotonic() - began) / 60, 2)
        line = json.dumps({"minutes": elapsed, "step": step, "tokens": tokens, **values})
        print(line, flush=True)
        with (folder / "log.jsonl").open("a") as file:
            file.write(line + "\n")

    def save() -> None:
        if worker:
            return
        spent = time.monotonic() - began
        torch.save({"model": model.state_dict(), "optimiser": optimiser.state(), "step": step, "tokens": tokens,
                    "spent": spent, "plan": asdict(plan)}, saved.with_suffix(".new"))  # fmt: skip
        saved.with_suffix(".new").replace(saved)

    while plan.last is None or step < plan.last:
        start = time.monotonic()
        if minutes is not None and isinstance(plan, Plan) and len(rates) >= 50:
            if worker == 0:
                plan.settle(step, start - began, minutes, sum(rates[-200:]) / len(rates[-200:]))
            agree(plan)
        Moe.quantise = plan.rounds(step)
        batch = draw(step)
        loss, figures = losses(model, batch, plan.heads(step))
        optimiser.zero_grad()
        loss.backward()
        average_gradients(model)
        optimiser.step(plan.scale(step))
        step, tokens = step + 1, tokens + batch.tokens * workers
        rates.append(time.monotonic() - start)
        if step % 20 == 0:
            say(**figures, rate=round(20 * batch.tokens * workers / sum(rates[-20:])), scale=round(plan.scale(step), 3))
        if step % test_every == 0 and worker == 0:
            say(score=score(model, tokenizer, tests))
        if time.monotonic() - last_save > 240:
            save()
            last_save = time.monotonic()
    save()
    final = score(model, tokenizer, tests) if worker == 0 else {}
    say(score=final, final=True)
    return {
        "steps": step,
        "tokens": tokens,
        "minutes": round((time.monotonic() - began) / 60),
        "plan": asdict(plan),
        "score": final,
    }
