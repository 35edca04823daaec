"""Families that copy from the conversation: recall across turns, a needle in filler, JSON from a sentence."""

import json
from random import Random

from qwen35_local.engine import Message

from ..task import Task, ask, until
from .arithmetic import arithmetic
from .knowledge import fact, translation
from .pools import ANIMALS, COLOURS, DAYS, ITEMS, PLACES, POOLS, city, invented, name

# What the user tells, what the assistant says to it, what is asked later, the answer.
ABOUT = {
    "name": (
        ("My name is {v}.", "Hi, I am {v}.", "I'm {v}.", "Call me {v}.", "Hello, my name is {v}."),
        "Nice to meet you, {v}!",
        ("What is my name?", "Who am I?", "Do you remember my name?", "What's my name?", "Tell me my name."),
        "Your name is {v}.",
    ),
    "colour": (
        ("My favourite colour is {v}.", "I like the colour {v} best.", "The colour I love most is {v}."),
        "{v} is a nice colour.",
        ("What is my favourite colour?", "Which colour do I like best?", "What colour do I love most?"),
        "Your favourite colour is {v}.",
    ),
    "city": (
        ("I live in {v}.", "My home is in {v}.", "I come from {v}."),
        "I hope you like {v}.",
        ("Where do I live?", "In which city is my home?", "Which city do I come from?"),
        "You live in {v}.",
    ),
    "pet": (
        ("My pet is called {v}.", "I have a pet named {v}.", "The name of my pet is {v}."),
        "{v} is a good name.",
        ("What is my pet called?", "What is the name of my pet?", "Do you remember my pet's name?"),
        "Your pet is called {v}.",
    ),
}
FILLER_SUBJECTS, FILLER_VERBS = POOLS["filler_subjects"], POOLS["filler_verbs"]
FILLER_ENDS = (
    "",
    " in the evening",
    " yesterday",
    " last week",
    " after dinner",
    " near the old wall",
    " without a word",
    " as always",
)


def value_of(kind: str, rng: Random) -> str:
    if kind == "colour":
        return rng.choice(COLOURS)
    return {"name": name, "city": city, "pet": name}[kind](rng)


def distractor(rng: Random) -> list[Message]:
    """A question and answer of another family, as history shows it."""
    task = rng.choice((fact, translation, arithmetic))(rng)
    return [*task.messages, Message("assistant", task.reply[0].text)]


def recall(rng: Random, held_out: bool = False) -> Task:
    def draw(rng: Random) -> tuple[str, Task]:
        kinds = rng.sample(sorted(ABOUT), rng.choice((1, 1, 2, 2, 3)))
        values = {kind: value_of(kind, rng) for kind in kinds}
        messages: list[Message] = []
        for kind in kinds:
            told, said, _, _ = ABOUT[kind]
            value = values[kind]
            said = said.format(v=value)
            messages += [
                Message("user", rng.choice(told).format(v=value)),
                Message("assistant", said[0].upper() + said[1:]),
            ]
            for _ in range(rng.choice((0, 0, 1, 1, 2))):
                messages += distractor(rng)
        key = "/".join(values.values())
        if rng.random() < 0.2:  # the telling turn itself is also something to answer
            while messages[-2].text not in {t.format(v=v) for k, v in values.items() for t in ABOUT[k][0]}:
                messages = messages[:-2]
            said = messages.pop()
            return key, Task(
                "recall", tuple(messages), (Message("assistant", said.text, "The user told me something."),)
            )
        kind = rng.choice(kinds)
        answer = ABOUT[kind][3].format(v=values[kind])
        messages.append(Message("user", rng.choice(ABOUT[kind][2])))
        thought = f"The user said it: {values[kind]}."
        return key, Task("recall", tuple(messages), (Message("assistant", answer, thought),))

    return until(rng, draw, held_out)


def echo(rng: Random) -> Task:
    """A word to say again: what follows a space in the question begins the answer. Only trained, never scored."""
    word = rng.choice((*ITEMS, *PLACES, *ANIMALS, *COLOURS, *DAYS, *POOLS["subjects"], *POOLS["topics"]))
    word = rng.choice((word, word, invented(rng), invented(rng).lower(), name(rng), city(rng), word.capitalize()))
    question = rng.choice(("Repeat: {w}", "Repeat the word {w}.", "Say {w} again.", "Just write {w}."))
    return ask("echo", question.format(w=word), word, f"The word is {word}.")


def needle(rng: Random, held_out: bool = False, words: int | None = None) -> Task:
    """`words` of filler (about as many tokens), one to three codes in it, one asked for."""
    words = words or rng.choice((20, 40, 60, 80, 100, 120))

    def draw(rng: Random) -> tuple[str, Task]:
        sentences: list[str] = []
        length = 0
        while length < words:
            sentence = rng.choice(FILLER_SUBJECTS) + " " + rng.choice(FILLER_VERBS) + rng.choice(FILLER_ENDS) + "."
            sentences.append(sentence)
            length += len(sentence.split()) + 1
        places = rng.sample(PLACES, rng.choice((1, 2, 2, 3)))
        codes = {place: str(rng.randint(1000, 9999)) for place in places}
        for place, code in codes.items():
            sentences.insert(rng.randint(0, len(sentences)), f"The code of the {place} is {code}.")
        place = rng.choice(places)
        question = rng.choice(
            ("What is the code of the {p}?", "Which code does the {p} have?", "Tell me the code of the {p}.")
        ).format(p=place)
        task = ask(
            "needle",
            f"{' '.join(sentences)}\n\n{question}",
            codes[place],
            f"The code of the {place} is {codes[place]}.",
        )
        return f"{place}{codes[place]}", task

    return until(rng, draw, held_out)


def extraction(rng: Random) -> tuple[str, dict[str, object]]:
    """A sentence and the object in it."""
    who, town, age = name(rng), city(rng), rng.randint(10, 99)
    item, price, colour = rng.choice(ITEMS), rng.randint(2, 99), rng.choice(COLOURS)
    day, animal = rng.choice(DAYS), rng.choice(ANIMALS)
    return rng.choice((
        (f"{who} is {age} years old.", {"name": who, "age": age}),
        (f"{who} lives in {town}.", {"name": who, "city": town}),
        (f"{who} is {age} and lives in {town}.", {"name": who, "age": age, "city": town}),
        (f"{who}, {age}, comes from {town}.", {"name": who, "age": age, "city": town}),
        (f"The {colour} {item} costs {price} euros.", {"item": item, "colour": colour, "price": price}),
        (f"The {item} costs {price} dollars.", {"item": item, "price": price}),
        (f"{who} will be in {town} on {day}.", {"name": who, "city": town, "day": day}),
        (f"{who} has a {animal} called {invented(rng)}.", {"name": who, "animal": animal}),
    ))  # fmt: skip


def extract_json(rng: Random, held_out: bool = False) -> Task:
    def draw(rng: Random) -> tuple[str, Task]:
        sentence, values = extraction(rng)
        if len(values) > 2 and rng.random() < 0.3:  # ask for fewer keys than there are
            values = {key: values[key] for key in sorted(rng.sample(list(values), 2), key=list(values).index)}
        keys = list(values)
        listed = " and ".join([", ".join(keys[:-1]), keys[-1]])
        question = rng.choice((
            "Extract {k} as JSON: {s}", "Give me {k} as JSON. {s}", "{s} Write {k} as JSON.",
            "{s}\nReturn {k} as JSON.",
            "Answer with JSON ({k}): {s}", "Return a JSON object with {k}.\n{s}",
        )).format(k=listed, s=sentence)  # fmt: skip
        return sentence, ask("json", question, json.dumps(values, ensure_ascii=False), f"The keys are {listed}.")

    return until(rng, draw, held_out)
