"""Codes hidden in filler, as the miniature was taught to find them (in 200 tokens), at any length."""

from collections.abc import Iterator
from dataclasses import dataclass
from random import Random

import mlx.core as mx
import numpy as np

from qwen35_local.backends.mlx import MlxEngine
from qwen35_local.backends.prefix import common_prefix
from qwen35_local.engine import ChatRequest
from scripts.miniature.families.context import FILLER_ENDS, FILLER_SUBJECTS, FILLER_VERBS
from scripts.miniature.families.pools import PLACES

DEPTHS = (0.1, 0.3, 0.5, 0.7, 0.9)
MOST = 60  # tokens of an answer


@dataclass(frozen=True, slots=True)
class Found:
    """What was asked at a depth, and what came."""

    depth: float
    expected: str
    said: str

    @property
    def right(self) -> bool:
        return self.said.strip() == self.expected


def prompts(engine: MlxEngine, tokens: int, rng: Random) -> list[tuple[float, str, list[int]]]:
    """(depth, code, prompt) of one text with a code at every depth, one prompt a code; about `tokens` long."""
    sentences = [
        f"{rng.choice(FILLER_SUBJECTS)} {rng.choice(FILLER_VERBS)}{rng.choice(FILLER_ENDS)}." for _ in range(64)
    ]
    each = len(engine.tokenize(" ".join(sentences))) / len(sentences)
    count = int((tokens - 150) / each)
    text = [rng.choice(sentences) for _ in range(count)]
    codes = [
        (depth, place, str(rng.randint(1000, 9999))) for depth, place in zip(DEPTHS, rng.sample(PLACES, 5), strict=True)
    ]
    for depth, place, code in reversed(codes):
        text.insert(int(depth * count), f"The code of the {place} is {code}.")
    body, found = " ".join(text), []
    for depth, place, code in codes:
        request = ChatRequest.of(f"{body}\n\nWhat is the code of the {place}?")
        found.append((depth, code, list(engine.prompt(request))))
    return found


def asked(engine: MlxEngine, tokens: int, seed: int = 0) -> Iterator[Found]:
    """Greedy answers; the text is read once and gone back to for every question."""
    asking = prompts(engine, tokens, Random(f"{tokens} {seed}"))
    shared = common_prefix(asking[0][2], asking[1][2])
    shared = min([shared, *(common_prefix(asking[0][2], ids) for _, _, ids in asking)])
    session = engine.open_session()
    for _ in session.sync(asking[0][2][:shared]):
        pass
    before, known = session._state.snapshot(), list(session._ids)
    end = engine.tokenizer.special["<|im_end|>"]
    for depth, code, ids in asking:
        session._state.restore(before)
        session._ids, session._logits, session._snapshots = list(known), None, []
        for _ in session.sync(ids):
            pass
        said: list[int] = []
        while len(said) < MOST and (token := int(np.array(session.logits())[: engine.tokenizer.size].argmax())) != end:
            said.append(token)
            session.advance(token)
        yield Found(depth, code, engine.detokenize(said).rpartition("</think>")[2])
    session.close()
    mx.clear_cache()
