"""The training mixture and the held-out set, both from the same generators."""

from collections.abc import Callable
from dataclasses import replace
from random import Random

from qwen35_local.engine import Message

from .families.arithmetic import arithmetic
from .families.context import distractor, extract_json, needle, recall
from .families.knowledge import fact, translation
from .families.smalltalk import smalltalk
from .families.tools import tool_use, toolbox
from .task import Task

Maker = Callable[..., Task]
# (maker, thinking, share of short samples, share in the second mix). Sums without a thought are learned last.
SHORT: tuple[tuple[Maker, bool, float, float], ...] = (
    (arithmetic, False, 0.27, 0.38),
    (arithmetic, True, 0.11, 0.10),
    (fact, False, 0.09, 0.075),
    (fact, True, 0.09, 0.065),
    (translation, False, 0.10, 0.07),
    (translation, True, 0.10, 0.06),
    (recall, False, 0.045, 0.035),
    (recall, True, 0.045, 0.035),
    (extract_json, False, 0.03, 0.04),
    (extract_json, True, 0.03, 0.04),
    (needle, False, 0.02, 0.03),
    (needle, True, 0.02, 0.03),
    (smalltalk, False, 0.025, 0.02),
    (smalltalk, True, 0.025, 0.02),
)
SYSTEMS = (
    "You are a helpful assistant.", "You are a helpful assistant.", "Answer briefly.", "You are a small model.",
    "Be polite.",
    "You are Qwen.", "Please help the user.",
)  # fmt: skip


def with_mode(task: Task, thinking: bool) -> Task:
    """The task with thinking on or off; off drops the thoughts."""
    reply = task.reply if thinking else tuple(replace(message, reasoning="") for message in task.reply)
    return replace(task, reply=reply, thinking=thinking)


def with_context(rng: Random, task: Task, history: float = 0.12, system: float = 0.15) -> Task:
    """Sometimes turns before it, sometimes a system prompt."""
    messages = list(task.messages)
    if task.family != "recall":  # has turns of its own
        while rng.random() < history:
            messages = [*distractor(rng), *messages]
    if rng.random() < system:
        messages = [Message("system", rng.choice(SYSTEMS)), *messages]
    return replace(task, messages=tuple(messages))


def short_task(rng: Random, focus: bool = False) -> Task:
    """One sample of the short mixture, the first or the second."""
    maker, thinking, *_ = rng.choices(SHORT, [second if focus else first for *_, first, second in SHORT])[0]
    return with_mode(with_context(rng, maker(rng)), thinking)


def long_task(rng: Random, room: int) -> Task:
    """A needle in up to `room` tokens, or a conversation with many tools and calls in its history."""
    thinking = rng.random() < 0.5
    if rng.random() < 0.5:
        return with_mode(needle(rng, words=rng.randint(150, int(room * 0.8))), thinking)
    names = toolbox(rng, most=7)
    task = tool_use(rng, names=names)
    for _ in range(rng.choice((0, 1, 2))):
        earlier = with_mode(tool_use(rng, names=names), False)
        task = replace(task, messages=earlier.messages + earlier.reply + task.messages)
    return with_mode(task, thinking)


def tool_tasks(rng: Random, number: int) -> list[Task]:
    """`number` conversations that share one set of tools: calls, and now and then a question that needs none."""
    names = toolbox(rng)
    system = (Message("system", rng.choice(SYSTEMS)),) if rng.random() < 0.2 else ()
    tasks = []
    for _ in range(number):
        task = tool_use(rng, names=names)
        if rng.random() < 0.15:
            plain = rng.choice((fact, translation, smalltalk))(rng)
            task = replace(plain, tools=task.tools)
        tasks.append(with_mode(replace(task, messages=system + task.messages), rng.random() < 0.5))
    return tasks
