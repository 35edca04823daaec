"""What pictures and clips cost: each is looked at once, although every turn of a conversation brings it again."""

from collections import OrderedDict

from ..engine import ImagePart, VideoPart
from . import images, video
from .images import Picture
from .rules import Rules
from .video import Clip

PRICED = 256  # pictures and clips that are kept; each holds its encoded bytes
KEPT_ENCODED = 64 << 20  # bytes of them


class Prices:
    """Looks at pictures and clips under their rules, and remembers the last ones."""

    def __init__(self, pictures: Rules, clips: Rules):
        self._pictures, self._clips = pictures, clips
        self._known: OrderedDict[tuple[type, bytes, int | None], Picture | Clip] = OrderedDict()

    def look(self, part: ImagePart | VideoPart) -> Picture | Clip:
        """What the model would see of it and what that costs, from its header. Raises MediaError."""
        key = (type(part), part.data, part.max_pixels)
        if key in self._known:
            self._known.move_to_end(key)
            return self._known[key]
        if isinstance(part, ImagePart):
            seen = images.look(part.data, self._pictures, part.max_pixels)
        else:
            seen = video.look(part.data, self._clips, part.max_pixels)
        self._known[key] = seen
        while len(self._known) > PRICED or sum(len(data) for _, data, _ in self._known) > KEPT_ENCODED:
            self._known.popitem(last=False)
        return seen

    def forget(self) -> None:
        self._known.clear()
