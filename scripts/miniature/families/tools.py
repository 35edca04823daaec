"""Tool calls in the wire format, and answers that use the result."""

import json
from collections.abc import Callable, Mapping
from functools import partial
from random import Random
from typing import Any

from qwen35_local.engine import Message
from qwen35_local.events import ToolCall

from ..task import Task, until
from .pools import ANIMALS, COLOURS, CURRENCIES, FRESH, ITEMS, PLACES, POOLS, city, invented, name


def _tool(name: str, description: str, **properties: tuple[str, str]) -> dict[str, Any]:
    """An OpenAI function schema; each property is (type, description), all required."""
    parameters = {
        "type": "object",
        "properties": {key: {"type": kind, "description": text} for key, (kind, text) in properties.items()},
        "required": list(properties),
    }
    return {"type": "function", "function": {"name": name, "description": description, "parameters": parameters}}


TOOLS: dict[str, dict[str, Any]] = {
    tool["function"]["name"]: tool
    for tool in (
        _tool("get_weather", "Current weather of a city.", city=("string", "City name")),
        _tool("get_time", "Current local time of a city.", city=("string", "City name")),
        _tool(
            "calculate",
            "Exact arithmetic on two numbers.",
            a=("number", "First number"),
            operation=("string", "One of + - * /"),
            b=("number", "Second number"),
        ),
        _tool(
            "convert_currency",
            "Convert an amount of money.",
            amount=("number", "Amount"),
            source=("string", "Currency code"),
            target=("string", "Currency code"),
        ),
        _tool("search_notes", "Search the notes of the user.", query=("string", "Words to find")),
        _tool("set_timer", "Start a timer.", minutes=("integer", "Duration in minutes")),
        _tool("send_message", "Send a message to a person.", to=("string", "Name"), text=("string", "Message")),
    )
}
SKIES = ("sunny", "cloudy", "rainy", "windy", "foggy", "snowy")
TOPICS = POOLS["topics"]
TEXTS = (
    "I am late", "See you soon", "Dinner is ready", "Happy birthday", "Call me back", "The train is late",
    "I am at home", "Good luck", "We won", "Thank you", "The meeting is over", "Please bring milk",
)  # fmt: skip

Case = tuple[str, dict[str, Any], str, str, str]  # question, arguments, result, thought before the answer, answer


def _fresh(wide: int) -> float:
    """Share of invented names: the wider, the less copying can lean on the lists."""
    return 0.5 if wide > 1 else FRESH


def weather(rng: Random, wide: int = 0) -> Case:
    town, sky, degrees = city(rng, _fresh(wide)), rng.choice(SKIES), rng.randint(-9, 39)
    question = rng.choice((
        "What is the weather in {c}?", "How is the weather in {c}?", "What's the weather like in {c}?",
        "Weather in {c}?",
        "Tell me the weather in {c}.", "Is it warm in {c} now?",
    ))  # fmt: skip
    result = json.dumps({"temperature": degrees, "condition": sky})
    return (
        question.format(c=town),
        {"city": town},
        result,
        "I have the weather.",
        f"It is {sky} in {town}, {degrees} degrees.",
    )


def clock(rng: Random, wide: int = 0) -> Case:
    town, now = city(rng, _fresh(wide)), f"{rng.randint(0, 23):02}:{rng.randint(0, 59):02}"
    question = rng.choice(
        ("What time is it in {c}?", "Tell me the time in {c}.", "What's the time in {c}?", "Time in {c}?")
    )
    return question.format(c=town), {"city": town}, now, "I have the time.", f"It is {now} in {town}."


def calculation(rng: Random) -> Case:
    sign, word = rng.choice(
        (("*", "times"), ("*", "multiplied by"), ("/", "divided by"), ("+", "plus"), ("-", "minus"))
    )
    if sign == "/":
        b = rng.randint(2, 99)
        a = b * rng.randint(2, 99)
    else:
        a, b = rng.randint(100, 9999), rng.randint(11, 999)
    value = {"*": a * b, "/": a // b, "+": a + b, "-": a - b}[sign]
    shown = rng.choice((sign, word))
    question = rng.choice(("What is {e}?", "Calculate {e}.", "How much is {e}?", "Use the calculator: {e}")).format(
        e=f"{a} {shown} {b}"
    )
    return question, {"a": a, "operation": sign, "b": b}, str(value), "I have the result.", f"{a} {sign} {b} = {value}"


def currency(rng: Random) -> Case:
    source, target = rng.sample(CURRENCIES, 2)
    amount, value = rng.randint(2, 999), f"{rng.randint(1, 999)}.{rng.randint(0, 99):02}"
    question = rng.choice((
        "Convert {a} {s} to {t}.", "How much is {a} {s} in {t}?", "What is {a} {s} in {t}?", "{a} {s} to {t}",
    )).format(a=amount, s=source, t=target)  # fmt: skip
    arguments = {"amount": amount, "source": source, "target": target}
    return question, arguments, value, "I have the amount.", f"{amount} {source} is {value} {target}."


def notes(rng: Random, wide: int = 0) -> Case:
    """`wide` 1: mostly topics that exist nowhere, so that copying does not lean on the list; 2: also other words,
    and two together, so that a word stands where an argument begins that elsewhere follows a space."""
    topic = invented(rng).lower() if wide and rng.random() < 0.6 else rng.choice(TOPICS)
    if wide > 1 and rng.random() < 0.7:
        topic = rng.choice((*TOPICS, *PLACES, *ITEMS, *ANIMALS, *COLOURS))
        if topic in TOPICS or rng.random() < 0.4:
            topic = f"{topic} {rng.choice((name(rng), rng.choice(TOPICS), rng.choice(PLACES), invented(rng)))}"
    elif rng.random() < 0.4:
        topic = f"{name(rng)} {topic}"
    found = rng.choice(
        (f"{name(rng)} is at the {rng.choice(PLACES)}", f"the code is {rng.randint(1000, 9999)}", f"ask {name(rng)}")
    )
    question = rng.choice((
        "Search my notes for {q}.", "What do my notes say about {q}?", "Find {q} in my notes.",
        "Look up {q} in my notes.",
    )).format(q=topic)  # fmt: skip
    return question, {"query": topic}, found, "I have the note.", f"Your notes say: {found}."


def timer(rng: Random) -> Case:
    minutes = rng.randint(1, 90)
    question = rng.choice(
        ("Set a timer for {m} minutes.", "Start a {m} minute timer.", "Timer: {m} minutes", "Wake me in {m} minutes.")
    )
    return (
        question.format(m=minutes),
        {"minutes": minutes},
        "ok",
        "The timer runs.",
        f"The timer is set for {minutes} minutes.",
    )


def message(rng: Random, wide: int = 0) -> Case:
    who, text = name(rng, _fresh(wide)), rng.choice(TEXTS)
    if wide > 1 and rng.random() < 0.4:
        text = f"{rng.choice((*TOPICS, *PLACES, *ITEMS))} {rng.choice(('at', 'for', 'with', 'and'))} {name(rng)}"
    question = rng.choice(
        ("Send a message to {w}: {t}", "Tell {w}: {t}", "Write to {w}: {t}", "Message {w}: {t}")
    ).format(w=who, t=text)
    return question, {"to": who, "text": text}, "sent", "The message is sent.", f"I sent your message to {who}."


WIDE = ("get_weather", "get_time", "search_notes", "send_message")  # have words to copy
CASES: Mapping[str, Callable[..., Case]] = {
    "get_weather": weather,
    "get_time": clock,
    "calculate": calculation,
    "convert_currency": currency,
    "search_notes": notes,
    "set_timer": timer,
    "send_message": message,
}


def toolbox(rng: Random, most: int = 3) -> tuple[str, ...]:
    """Names of one to `most` tools, in any order."""
    return tuple(rng.sample(sorted(TOOLS), rng.randint(1, most)))


def tool_use(rng: Random, held_out: bool = False, names: tuple[str, ...] | None = None, wide: int = 0) -> Task:
    """A question, the call, its result and the answer. `names` are the tools on offer."""
    names = names or toolbox(rng)
    used = rng.choice(names)

    def draw(rng: Random) -> tuple[str, Task]:
        make = partial(CASES[used], wide=wide) if wide and used in WIDE else CASES[used]
        question, arguments, result, thought, answer = make(rng)
        reply = (
            Message("assistant", "", f"I call {used}.", (ToolCall(used, arguments),)),
            Message("tool", result),
            Message("assistant", answer, thought),
        )
        return f"{used}/{arguments}", Task(
            "tool", (Message("user", question),), reply, tuple(TOOLS[name] for name in names)
        )

    return until(rng, draw, held_out)
