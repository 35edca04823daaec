"""Values that the copying families draw from: lists from pools.txt, and invented words so that copying generalises."""

from pathlib import Path
from random import Random


def _read() -> dict[str, tuple[str, ...]]:
    """Section -> its values, which ` | ` separates."""
    pools: dict[str, str] = {}
    section = ""
    for line in (Path(__file__).parents[1] / "pools.txt").read_text().splitlines():
        if line.startswith("["):
            section = line.strip("[]")
        elif section:
            pools[section] = f"{pools.get(section, '')} {line}"
    return {section: tuple(value.strip() for value in text.split("|")) for section, text in pools.items()}


POOLS = _read()
NAMES, CITIES, COLOURS, ANIMALS = (POOLS[key] for key in ("names", "cities", "colours", "animals"))
PLACES, ITEMS, DAYS, CURRENCIES = (POOLS[key] for key in ("places", "items", "days", "currencies"))

_ONSETS = ("b", "d", "f", "g", "k", "l", "m", "n", "p", "r", "s", "t", "v", "z", "br", "st", "tr", "ch", "sh")
_VOWELS = ("a", "e", "i", "o", "u", "ai", "ou")
_CODAS = ("", "", "n", "r", "s", "l", "x", "th")


def invented(rng: Random) -> str:
    """A capitalised word that exists nowhere."""
    syllables = [rng.choice(_ONSETS) + rng.choice(_VOWELS) for _ in range(rng.randint(1, 2))]
    return ("".join(syllables) + rng.choice(_ONSETS) + rng.choice(_VOWELS) + rng.choice(_CODAS)).capitalize()


FRESH = 0.2  # share of names that exist nowhere


def name(rng: Random, fresh: float = FRESH) -> str:
    return invented(rng) if rng.random() < fresh else rng.choice(NAMES)


def city(rng: Random, fresh: float = FRESH) -> str:
    return invented(rng) if rng.random() < fresh else rng.choice(CITIES)
