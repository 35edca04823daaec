"""Reading a JSON object field by field: each is checked, and one that nobody asked for is refused by name."""

from collections.abc import Iterable, Mapping
from typing import Any

from .refusal import Refused, bad

NAMES = {str: "a string", int: "a whole number", float: "a number", bool: "true or false", dict: "an object"}
NAMES |= {list: "an array"}


class Fields:
    """One object of a request. `path` is where it stands, for `param`; null means "not given"."""

    def __init__(self, value: Any, path: str = ""):
        if not isinstance(value, Mapping):
            raise bad(f"{path or 'the body'} must be an object", path or None)
        self._value = value
        self._read: set[str] = set()
        self.path = path

    def param(self, name: str) -> str:
        return f"{self.path}.{name}" if self.path else name

    def refuse(self, name: str, reason: str, code: str | None = None) -> Refused:
        return bad(f"{self.param(name)} {reason}", self.param(name), code)

    def __contains__(self, name: str) -> bool:
        return self._value.get(name) is not None

    def any(self, name: str) -> Any:
        self._read.add(name)
        return self._value.get(name)

    def _typed(self, name: str, kind: type) -> Any:
        value = self.any(name)
        if value is None:
            return None
        wrong = not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool)
        if wrong and not (kind is float and isinstance(value, int) and not isinstance(value, bool)):
            raise self.refuse(name, f"must be {NAMES[kind]}, not {_shown(value)}")
        return value

    def text(self, name: str) -> str | None:
        return self._typed(name, str)

    def needed_text(self, name: str) -> str:
        value = self.text(name)
        if value is None:
            raise self.refuse(name, "is missing", "missing_required_parameter")
        return value

    def flag(self, name: str, default: bool = False) -> bool:
        value = self._typed(name, bool)
        return default if value is None else value

    def whole(self, name: str, low: int, high: int = 2**63) -> int | None:
        return self._in_range(name, self._typed(name, int), low, high)

    def number(self, name: str, low: float, high: float) -> float | None:
        return self._in_range(name, self._typed(name, float), low, high)

    def _in_range(self, name: str, value: Any, low: float, high: float) -> Any:
        if value is not None and not low <= value <= high:
            limits = f"at least {low}" if high >= 2**63 else f"from {low:g} to {high:g}"
            raise self.refuse(name, f"must be {limits}, not {_shown(value)}")
        return value

    def mapping(self, name: str) -> Mapping[str, Any] | None:
        return self._typed(name, dict)

    def object(self, name: str) -> "Fields | None":
        value = self.mapping(name)
        return None if value is None else Fields(value, self.param(name))

    def array(self, name: str, most: int | None = None) -> list[Any]:
        value = self._typed(name, list) or []
        if most is not None and len(value) > most:
            raise self.refuse(name, f"holds {len(value)} items, and {most} is the most")
        return value

    def objects(self, name: str, most: int | None = None) -> "list[Fields]":
        return [Fields(item, f"{self.param(name)}[{at}]") for at, item in enumerate(self.array(name, most))]

    def choice(self, name: str, options: Iterable[str]) -> str | None:
        value, options = self.text(name), tuple(options)
        if value is not None and value not in options:
            raise self.refuse(name, f"must be one of {', '.join(options)}, not {_shown(value)}")
        return value

    def strings(self, name: str, most: int) -> tuple[str, ...]:
        """A string or an array of strings, none of them empty."""
        value = self.any(name)
        if value is None:
            return ()
        values = [value] if isinstance(value, str) else self.array(name, most)
        if any(not isinstance(item, str) or not item for item in values):
            raise self.refuse(name, "must be strings that are not empty")
        return tuple(values)

    def ignore(self, *names: str) -> None:
        """Fields that need nothing done, whatever they say."""
        self._read.update(names)

    def only(self, name: str, values: Iterable[Any], reason: str) -> None:
        """A field that can be honoured for these values alone."""
        value = self.any(name)
        if value is not None and not any(value == allowed and type(value) is type(allowed) for allowed in values):
            raise self.refuse(name, f"{_shown(value)} is not supported: {reason}", "unsupported_value")

    def never(self, name: str, reason: str) -> None:
        """A field that cannot be honoured; null and empty lists ask for nothing."""
        if self.any(name) not in (None, [], {}):
            raise self.refuse(name, f"is not supported: {reason}", "unsupported_parameter")

    def end(self) -> None:
        """Refuse what has not been read."""
        if unknown := sorted(set(self._value) - self._read):
            name = unknown[0][:80]
            raise bad(
                f"unknown field {self.param(name)}: nothing here would honour it", self.param(name), "unknown_parameter"
            )


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
