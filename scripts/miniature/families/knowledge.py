"""Facts and the small dictionary: every entry is trained, each with one phrasing held out."""

from functools import cache
from pathlib import Path
from random import Random

from ..task import Task, ask, pick_phrasing

HERE = Path(__file__).parents[1]
TRANSLATE = (
    "Translate {word} to {language}.",
    "How do you say {word} in {language}?",
    "What is {word} in {language}?",
    "{word} in {language}?",
    "What is the {language} word for {word}?",
    "Translate '{word}' into {language}.",
    "Say {word} in {language}.",
)


@cache
def facts() -> tuple[tuple[str, str, str, str, tuple[str, ...]], ...]:
    """(relation, subject, answer, thought, phrasings) of every fact."""
    rows, relation, phrasings, thought = [], "", [], ""
    for line in (HERE / "facts.txt").read_text().splitlines():
        if line.startswith("["):
            relation, phrasings = line.strip("[]"), []
        elif line.startswith("ask "):
            phrasings.append(line.removeprefix("ask "))
        elif line.startswith("think "):
            thought = line.removeprefix("think ")
        elif " = " in line and not line.startswith("#"):
            subject, answer = line.split(" = ")
            rows.append((relation, subject, answer, thought.format(x=subject, y=answer), tuple(phrasings)))
    return tuple(rows)


@cache
def dictionary() -> tuple[tuple[str, str, str], ...]:
    """(English word, language, translation)."""
    lines = [line.split("\t") for line in (HERE / "words.txt").read_text().splitlines() if "\t" in line]
    languages = lines[0][1:]
    return tuple(
        (word, language, other)
        for word, *others in lines[1:]
        for language, other in zip(languages, others, strict=True)
    )


def fact(rng: Random, held_out: bool = False) -> Task:
    relation, subject, answer, thought, phrasings = rng.choice(facts())
    index = pick_phrasing(rng, len(phrasings), f"{relation}/{subject}", held_out)
    question = phrasings[index].format(x=subject)
    return ask("fact", loosen(rng, question, held_out), answer, thought)


def translation(rng: Random, held_out: bool = False) -> Task:
    word, language, other = rng.choice(dictionary())
    index = pick_phrasing(rng, len(TRANSLATE), f"{word}/{language}", held_out)
    question = TRANSLATE[index].format(word=word, language=language)
    return ask("translation", loosen(rng, question, held_out), other, f"{word} in {language} is {other}.")


def loosen(rng: Random, question: str, held_out: bool) -> str:
    """People type carelessly: sometimes no capitals, sometimes no final mark (training only)."""
    if held_out:
        return question
    if rng.random() < 0.08:
        question = question.lower()
    return question[:-1] if question[-1] in "?." and rng.random() < 0.08 else question
