"""A retry of a request that is still being answered joins it, instead of making the machine do the work twice."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from starlette.datastructures import Headers

from ..bridge import Answer


class InFlight:
    """Answers under way, by what was asked."""

    def __init__(self) -> None:
        self._answers: dict[str, Answer] = {}

    def find(self, key: str, headers: Headers, answer_repeats: bool) -> Answer | None:
        """The answer that a request may join.

        Two people who ask the same want two answers; a retry, by its headers, or one whose answer can only be the same
        (greedy or seeded), does not.
        """
        self._answers = {name: answer for name, answer in self._answers.items() if answer.joinable}
        retried = headers.get("x-stainless-retry-count", "0") != "0" or "idempotency-key" in headers
        return self._answers.get(key) if retried or answer_repeats else None

    def add(self, key: str, answer: Answer) -> None:
        self._answers.setdefault(key, answer)


def key_of(path: str, value: Mapping[str, Any], headers: Headers) -> str:
    """The same for requests that ask the same. `stream` does not matter: it is how, not what."""
    asked = {name: item for name, item in value.items() if name not in ("stream", "stream_options")}
    parts = [path, headers.get("idempotency-key", ""), json.dumps(asked, sort_keys=True)]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()
