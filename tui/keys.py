"""Which key does what: the bindings as they are defined, with the user's own keys in place of some."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from textual.binding import Binding, BindingType

KEY = re.compile(r"(?:(?:ctrl|alt|shift|super|meta|hyper)\+)*(?:[a-z][a-z0-9_]*|\S)")  # as Textual names keys


@dataclass(frozen=True, slots=True)
class Key:
    """`name` is what `/keys` calls the action; empty if its key is fixed. `keys` are parted by commas."""

    name: str
    keys: str
    description: str


def keys_of(bindings: Iterable[BindingType], chosen: Mapping[str, str]) -> list[Key]:
    """The keys in force."""
    found = [binding for binding in bindings if isinstance(binding, Binding)]
    return [Key(b.id or "", chosen.get(b.id or "", b.key), b.description) for b in found]


def why_not(name: str, key: str, known: Iterable[Key]) -> str:
    """A sentence that says why `key` cannot do `name`; empty if it can."""
    named = {one.name: one for one in known if one.name}
    if name not in named:
        return f"no key is named {name!r}: {', '.join(named)}"
    if key and not KEY.fullmatch(key):
        return f"{key!r} is no key: ctrl+g, alt+1, f6 or g are"
    taken = [one for one in named.values() if one.name != name and key in one.keys.split(",")]
    return f"{key} is the key for {taken[0].description.lower()} ({taken[0].name}) already" if taken else ""
