"""What a GGUF model sees: prices of pictures and clips, and their features, computed when they are first needed."""

from collections import OrderedDict
from typing import cast

import numpy as np

from ...engine import ImagePart, Span, VideoPart
from ...gguf.vision import VisionPart
from ...media.images import Picture
from ...media.prices import Prices
from ...media.video import Clip
from .handle import Model
from .library import load_mtmd
from .projector import Projector

PAIR = 2  # frames that one span of a clip shows
KEPT = 256 << 20  # bytes of features kept for pictures that come again, as they do in every later turn


class Eyes:
    """Sees for all sessions of an engine; the vision part is loaded with the first picture."""

    def __init__(self, part: VisionPart, model: Model):
        self._part, self._model = part, model
        self._prices = Prices(*part.rules)
        self._projector: Projector | None = None
        self._features: OrderedDict[str, np.ndarray] = OrderedDict()
        self._decoded: tuple[str, np.ndarray] = ("", np.empty(0, np.uint8))  # key and pixels of what was last decoded

    def look(self, part: ImagePart | VideoPart) -> Picture | Clip:
        """What the model would see of it and what that costs, from its header. Raises MediaError."""
        return self._prices.look(part)

    def rows(self, span: Span) -> np.ndarray:
        """float32 [tokens, n_embd]: the embeddings of a span's tokens."""
        if (found := self._features.get(span.key)) is None:
            found = self._features[span.key] = self._loaded().features(self._frames(span), span.tokens)
        self._features.move_to_end(span.key)
        while len(self._features) > 1 and sum(array.nbytes for array in self._features.values()) > KEPT:
            self._features.popitem(last=False)
        return found

    def _frames(self, span: Span) -> np.ndarray:
        """uint8 [1 or 2, height, width, 3]: a picture, or one pair of a clip, which is decoded once for all of them."""
        seen = cast(Picture | Clip, span.seen)  # `look` made it
        if self._decoded[0] != seen.key:
            self._decoded = (seen.key, seen.pixels())
        pixels = self._decoded[1]
        return pixels if seen.seconds is None else pixels[span.frame * PAIR :][:PAIR]

    def _loaded(self) -> Projector:
        if self._projector is None:
            self._projector = Projector(load_mtmd(), self._part.path, self._model)
        return self._projector

    def rest(self) -> None:
        """A prompt has been read: its pixels are not needed any more."""
        self._decoded = ("", np.empty(0, np.uint8))

    def release(self) -> None:
        """Give the vision part's memory back. It is loaded again with the next picture; features are kept."""
        if self._projector is not None:
            self._projector.close()
            self._projector = None

    def close(self) -> None:
        self.rest()
        self.release()
        self._features.clear()
        self._prices.forget()
