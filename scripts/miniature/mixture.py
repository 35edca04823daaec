"""The training mixture and the held-out set, both from the same generators."""

from collections.abc import Callable
from dataclasses import replace
from random import Random

from qwen35_local.engine import Message

from .families.arithmetic import arithmetic
from .families.context import distractor, echo, extract_json, needle, recall
from .families.knowledge import fact, translation
from .families.pictures import SIGHTS, appears, position, shape
from .families.smalltalk import smalltalk
from .families.tools import tool_use, toolbox
from .task import Task

Maker = Callable[..., Task]
# (maker, thinking, shares of the short samples in the seven mixes). Sums without a thought are learned late, so
# the second has more of them; the third, of the second decay, has more of what was still behind; the fourth to
# seventh are what is rehearsed beside pictures: the sixth has more of what they made it forget, the last more sums.
SHORT: tuple[tuple[Maker, bool, float, float, float, float, float, float, float], ...] = (
    (arithmetic, False, 0.27, 0.38, 0.26, 0.2, 0.18, 0.15, 0.3),
    (arithmetic, True, 0.11, 0.10, 0.08, 0.06, 0.06, 0.07, 0.2),
    (fact, False, 0.09, 0.075, 0.05, 0.08, 0.11, 0.12, 0.06),
    (fact, True, 0.09, 0.065, 0.05, 0.06, 0.11, 0.12, 0.06),
    (translation, False, 0.10, 0.07, 0.05, 0.06, 0.06, 0.13, 0.07),
    (translation, True, 0.10, 0.06, 0.05, 0.06, 0.06, 0.13, 0.07),
    (recall, False, 0.045, 0.035, 0.05, 0.04, 0.04, 0.03, 0.03),
    (recall, True, 0.045, 0.035, 0.05, 0.04, 0.04, 0.03, 0.03),
    (extract_json, False, 0.03, 0.04, 0.07, 0.09, 0.08, 0.05, 0.05),
    (extract_json, True, 0.03, 0.04, 0.07, 0.09, 0.08, 0.05, 0.05),
    (needle, False, 0.02, 0.03, 0.09, 0.07, 0.07, 0.04, 0.03),
    (needle, True, 0.02, 0.03, 0.09, 0.05, 0.05, 0.03, 0.03),
    (smalltalk, False, 0.025, 0.02, 0.02, 0.02, 0.02, 0.02, 0.01),
    (smalltalk, True, 0.025, 0.02, 0.02, 0.02, 0.02, 0.02, 0.01),
    (echo, False, 0.0, 0.0, 0.0, 0.05, 0.05, 0.01, 0.0),
    (echo, True, 0.0, 0.0, 0.0, 0.02, 0.02, 0.0, 0.0),
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


def short_task(rng: Random, mix: int = 0) -> Task:
    """One sample of a short mixture; after the seventh they stay as they are."""
    maker, thinking, *_ = rng.choices(SHORT, [shares[min(mix, 6)] for _, _, *shares in SHORT])[0]
    return with_mode(with_context(rng, maker(rng)), thinking)


# Shares of the questions about pictures in the six mixes, in the order of SIGHTS: colour, shape, count,
# position, number, word, sides, clip.
SIGHT_SHARES = (
    (12, 12, 12, 12, 18, 14, 10, 10),
    (14, 14, 13, 13, 15, 18, 8, 5),
    (7, 22, 10, 22, 20, 7, 4, 8),
    (6, 34, 6, 34, 8, 4, 3, 5),
    (3, 5, 4, 50, 6, 4, 3, 25),
    (3, 4, 5, 34, 18, 6, 2, 28),
)


def sight(rng: Random, mix: int = 0) -> Task:
    """One question about pictures or a clip, in either mode."""
    maker = rng.choices(SIGHTS, SIGHT_SHARES[min(mix, len(SIGHT_SHARES) - 1)])[0]
    task = maker(rng)
    while mix >= 3 and maker is shape and "Which shape is" not in task.messages[-1].text:
        task = maker(rng)  # alone a shape is easily named; which one has a colour is learned late
    while mix >= 5 and maker in (position, appears) and "shape" in task.messages[-1].text:
        task = maker(rng)  # likewise where one is, and when it appears
    task = with_mode(task, rng.random() < 0.4)
    if rng.random() < 0.05:
        task = replace(task, messages=(Message("system", rng.choice(SYSTEMS)), *task.messages))
    return task


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


def tool_tasks(rng: Random, number: int, wide: int = 0) -> list[Task]:
    """`number` conversations that share one set of tools: calls, and now and then a question that needs none."""
    names = toolbox(rng)
    system = (Message("system", rng.choice(SYSTEMS)),) if rng.random() < 0.2 else ()
    tasks = []
    for _ in range(number):
        task = tool_use(rng, names=names, wide=wide)
        if rng.random() < 0.15:
            plain = rng.choice((fact, translation, smalltalk))(rng)
            task = replace(plain, tools=task.tools)
        tasks.append(with_mode(replace(task, messages=system + task.messages), rng.random() < 0.5))
    return tasks
