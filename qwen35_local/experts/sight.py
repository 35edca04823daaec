"""What seeing takes of a memory budget. Pure.

Pictures are looked at before a prompt goes through the layers, so the memory of that pass serves for both; and if
experts are streamed, the tower is given back before the pass. Large pictures take gigabytes: where that would cost many
experts, they are shown smaller.
"""

from dataclasses import dataclass

SCORES = 1 << 28  # bytes of attention scores at once
SHARE = 0.10  # of what is left for experts
FEWEST = 1024  # tokens that a picture may have at least: a megapixel
PATCHES = 4  # of one token


@dataclass(frozen=True, slots=True)
class Sight:
    """A vision tower in bytes: its weights, what looking takes whatever the picture (`fixed`) and for each of its
    tokens; the features of a token, which are kept; its heads; and the tokens of the largest picture that it is ever
    shown."""

    weights: int
    fixed: int
    per_token: int
    feature: int
    heads: int
    tokens: int

    def beyond(self, tokens: int, temporaries: int, resident: bool) -> int:
        """Bytes that pictures of up to `tokens` take beyond the `temporaries` of a pass."""
        scores = 2 * min(SCORES, self.heads * (PATCHES * tokens) ** 2 * 4)
        work = self.fixed + tokens * self.per_token + scores
        return self.weights + max(0, work - temporaries) if resident else max(0, self.weights + work - temporaries)

    def kept(self, context: int) -> int:
        """Bytes of the features of a prompt full of pictures, which are there until it has been read."""
        return context * self.feature

    def chosen(self, context: int, temporaries: int, left: int) -> int:
        """Tokens of the largest picture in a plan with `left` bytes for experts."""
        tokens = min(context, self.tokens)
        while tokens > FEWEST and self.beyond(tokens, temporaries, resident=False) > SHARE * left:
            tokens = max(FEWEST, tokens // 2)
        return tokens
