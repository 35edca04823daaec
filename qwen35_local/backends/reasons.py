"""Why not more of a prompt was reused, in a sentence that says what to change. Pure."""

from collections.abc import Sequence

from ..chat.template import TOOLS_CLOSE
from ..chat.tokenizer import Tokenizer

SHOWN = 40  # characters of a quoted text
NEARBY = 8  # tokens: a thinking block opens right where the turn does


def why(old: Sequence[int], new: Sequence[int], at: int, tokenizer: Tokenizer) -> str:
    """What is different at token `at`, the first in which the prompt `new` parts from the tokens `old`.

    Both are identities of prompts: negative where pictures are.
    """
    if at >= len(new):
        return f"the prompt ends after {at} tokens that were read before: its last token is read again"
    start = _last(new, tokenizer.special["<|im_start|>"], at)
    number = sum(token == tokenizer.special["<|im_start|>"] for token in new[: start + 1])
    role = _role(new, start, tokenizer)
    what = f"turn {number} ({role}) {_change(old, new, start, at, role, tokenizer)}"
    token = tokenizer.token_bytes(new[at]).decode(errors="replace")
    return f"{what}; the first differing token is number {at}, {_quoted(token)}"


def _change(old: Sequence[int], new: Sequence[int], start: int, at: int, role: str, tokenizer: Tokenizer) -> str:
    if min(old[at], new[at]) < 0 or tokenizer.special["<|vision_start|>"] in (old[at], new[at]):
        return "has another picture or video"
    if role == "system":
        return _system_change(_turn(old, start, tokenizer), _turn(new, start, tokenizer))
    think = tokenizer.special["<think>"]
    if role == "assistant" and think in old[start : at + NEARBY] and think not in new[start : at + NEARBY]:
        return (
            "is given without its thinking, as the model's format wants it after a new question "
            "(preserve_thinking keeps it)"
        )
    return "was rewritten" if role == "assistant" else "is another one"


def _system_change(old: str, new: str) -> str:
    before, after = (text.partition(TOOLS_CLOSE) for text in (old, new))
    tools_before, tools_after = (part[0].splitlines() if part[1] else [] for part in (before, after))
    if tools_before != tools_after:
        same = sorted(tools_before) == sorted(tools_after)
        return "lists its tools in another order" if same else "lists other tools"
    return "begins differently: a header that changes from request to request costs the whole prompt"


def _last(ids: Sequence[int], token: int, at: int) -> int:
    return next((place for place in range(min(at, len(ids) - 1), -1, -1) if ids[place] == token), 0)


def _turn(ids: Sequence[int], start: int, tokenizer: Tokenizer) -> str:
    end = tokenizer.special["<|im_end|>"]
    length = next((n for n, token in enumerate(ids[start:]) if token == end), len(ids) - start)
    return tokenizer.decode(ids[start : start + length])


def _role(ids: Sequence[int], start: int, tokenizer: Tokenizer) -> str:
    head = tokenizer.decode(ids[start + 1 : start + 5])
    return next((role for role in ("system", "user", "assistant") if head.startswith(role)), "text")


def _quoted(text: str) -> str:
    return repr(text if len(text) <= SHOWN else text[:SHOWN] + "…")
