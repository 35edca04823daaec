"""A checkpoint's vision: what a picture costs, its features, and the tower, which is loaded when it is first needed."""

from collections import OrderedDict
from collections.abc import Generator, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import mlx.core as mx

from ..chat.tokenizer import Tokenizer
from ..checkpoint.files import Checkpoint
from ..engine import ImagePart, Prompt, Span, VideoPart
from ..errors import ConfigError
from ..experts.budget import MemoryPlan, vision_nbytes
from ..experts.sight import Sight
from ..media.images import Picture
from ..media.prices import Prices
from ..media.rules import Rules, read_rules
from ..media.video import PIECE, Clip
from ..model.config import ModelConfig
from ..model.fusion import Fused
from ..model.positions import positions_of
from ..model.vision import VisionTower, work
from ..model.vision_config import VisionConfig
from ..model.weights import Weights

KEPT = 256 << 20  # bytes at most of features kept for pictures that come again, as they do in every later turn
SIGN = "visual.patch_embed.proj.weight"  # a tensor that every tower has


class Eyes:
    """Sees for all sessions of an engine. `lean` gives the tower's memory back after each prompt; `limit` is the most
    tokens of a picture, or of one pair of a clip's frames, where there is no memory for more."""

    def __init__(
        self,
        path: Path,
        config: ModelConfig,
        vision: VisionConfig,
        dtype: mx.Dtype,
        lean: bool = False,
        limit: int | None = None,
        kept: int = KEPT,
    ):
        """`kept` are bytes of features that the plan has room for."""
        self._path, self._config, self._vision, self._dtype, self._lean = path, config, vision, dtype, lean
        self._kept = min(KEPT, kept)
        pictures, clips = read_rules(path)
        for rules in (pictures, clips):
            _check(rules, vision)
        if limit is not None:
            pictures, clips = (replace(rules, at_once=limit * rules.factor**2) for rules in (pictures, clips))
        self.rules: tuple[Rules, Rules] = pictures, clips
        self.tower: VisionTower | None = None
        self._features: OrderedDict[str, mx.array] = OrderedDict()
        self._prices = Prices(*self.rules)

    def look(self, part: ImagePart | VideoPart) -> Picture | Clip:
        """What the model would see of it and what that costs, from its header. Raises MediaError."""
        return self._prices.look(part)

    def view(self, prompt: Prompt, reused: int) -> "View | None":
        """What is to be seen in `prompt` after its first `reused` tokens, if anything."""
        spans = [span for span in prompt.spans if span.start + span.tokens > reused]
        return View(self, prompt, spans) if spans else None

    def encode(self, seen: Picture | Clip) -> Generator[None, None, mx.array]:
        """Features [pairs * rows * columns, H], from the cache or through the tower; yields after each piece that the
        tower has seen."""
        if seen.key in self._features:
            self._features.move_to_end(seen.key)
            return self._features[seen.key]
        parts = []
        for patches in seen.pieces():
            _, rows, columns = seen.grid
            parts.append(self._loaded()(mx.array(patches), (len(patches) // (rows * columns), rows, columns)))
            mx.eval(parts[-1])
            yield
        features = mx.concatenate(parts) if len(parts) > 1 else parts[0]
        mx.eval(features)
        self._features[seen.key] = features
        while len(self._features) > 1 and sum(array.nbytes for array in self._features.values()) > self._kept:
            self._features.popitem(last=False)
        return features

    def _loaded(self) -> VisionTower:
        if self.tower is None:
            weights = Weights(Checkpoint.open(self._path), self._config, self._dtype)
            self.tower = VisionTower(weights, self._vision)
        return self.tower

    def rest(self) -> None:
        """A prompt has been seen."""
        if self._lean:
            self.release()

    def release(self) -> None:
        """Give the tower's memory back; it is loaded again when it is needed. Features of pictures are kept."""
        if self.tower is not None:
            self.tower = None
            mx.clear_cache()

    def forget(self) -> None:
        """Drop everything that is kept of pictures, too."""
        self.release()
        self._features.clear()
        self._prices.forget()


class View:
    """The pictures of one prompt that are still to be read: `encode` looks at them, `fused` puts them in place."""

    def __init__(self, eyes: Eyes, prompt: Prompt, spans: Sequence[Span]):
        self._eyes, self._spans = eyes, spans
        self._positions = positions_of(len(prompt), prompt.spans)
        self._features: dict[str, mx.array] = {}

    def encode(self) -> Iterator[None]:
        """Look at each picture and clip once; yields after each, and within long clips."""
        try:
            for span in self._spans:
                if span.seen.key not in self._features:
                    assert isinstance(span.seen, Picture | Clip)
                    self._features[span.seen.key] = yield from self._eyes.encode(span.seen)
        finally:
            self._eyes.rest()

    def fused(self, start: int, end: int) -> Fused | None:
        """For the pass over tokens `start` to `end`; None if it shows nothing."""
        here = [span for span in self._spans if span.start < end and span.start + span.tokens > start]
        if not here:
            return None
        rows = []
        for span in here:
            first = span.frame * span.tokens
            rows.append((span.start - start, self._features[span.seen.key][first : first + span.tokens]))
        return Fused(self._positions[:, start : end + 1], tuple(rows))


def sight_of(path: Path, weights: Weights, config: ModelConfig) -> Sight | None:
    """What seeing takes of memory, if the checkpoint has a vision tower. No tensor is read."""
    if config.vision is None or SIGN not in weights.tensors:
        return None
    pictures, clips = read_rules(path)
    pair = clips.max_pixels // clips.temporal_patch_size // clips.factor**2
    largest = max(pictures.max_pixels // pictures.factor**2, pair, PIECE)
    itemsize = weights.dtype.size
    fixed, per_token = work(config.vision, itemsize)
    tower, feature = vision_nbytes(weights.tensors, itemsize), config.vision.out_hidden_size * itemsize
    return Sight(tower, fixed, per_token, feature, config.vision.num_heads, largest)


def open_eyes(path: Path, weights: Weights, config: ModelConfig, tokenizer: Tokenizer, plan: MemoryPlan) -> Eyes | None:
    """Eyes, if the checkpoint has a vision tower; text-only conversions often keep its config without it."""
    if config.vision is None or SIGN not in weights.tensors:
        return None
    for kind, ours in (("image_token_id", "<|image_pad|>"), ("video_token_id", "<|video_pad|>")):
        theirs = getattr(config, kind)
        if theirs not in (None, tokenizer.special[ours]):
            raise ConfigError(
                f"{kind} in config.json is {theirs}, and {ours} of the tokenizer is {tokenizer.special[ours]}"
            )
    sight = plan.geometry.sight
    kept = sight.kept(plan.context) if sight else KEPT
    return Eyes(path, config, config.vision, weights.dtype, not plan.resident, plan.picture_limit, kept)


def _check(rules: Rules, vision: VisionConfig) -> None:
    for name in ("patch_size", "temporal_patch_size", "merge_size"):
        if (ours := getattr(rules, name)) != (theirs := getattr(vision, name)):
            raise ConfigError(f"{name} is {ours} in the preprocessor config and {theirs} in vision_config")
    if vision.in_channels != 3:
        raise ConfigError(f"in_channels {vision.in_channels} of vision_config is not supported: pictures have 3")
