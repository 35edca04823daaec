"""The state of one timeline: keys and values of the attention layers, convolution tail and delta state of the others.

Keys and values can be cut back to any length; the recurrent part cannot, it can only be put back from a snapshot.
"""

from copy import copy
from dataclasses import dataclass

import mlx.core as mx

from .config import FULL, TextConfig
from .key_values import KeyValues
from .kv_format import PLAIN, KvFormat


@dataclass(slots=True)
class Recurrent:
    """Of one Gated DeltaNet layer: `conv` [B, kernel - 1, C], the last inputs of the convolution (zeros before the
    start), and `delta` [B, Hv, Dv, Dk] float32."""

    conv: mx.array
    delta: mx.array
    trail: "Trail | None" = None

    def kept(self) -> "Recurrent":
        """As it is now (arrays are immutable, so this is no copy)."""
        return Recurrent(self.conv, self.delta)


@dataclass(slots=True)
class Trail:
    """What a layer leaves behind on its way through T tokens, to go back to any of them: `inputs` of the convolution
    [B, kernel - 1 + T, C] and `deltas` after every token [B, T, Hv, Dv, Dk]."""

    inputs: mx.array | None = None
    deltas: mx.array | None = None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What brings a state back to `tokens`: the recurrent layers' values, and `State.tail`."""

    tokens: int
    rope_delta: int
    recurrent: tuple[Recurrent, ...]
    tail: mx.array | None = None

    @property
    def nbytes(self) -> int:
        return sum(layer.conv.nbytes + layer.delta.nbytes for layer in self.recurrent)


class State:
    """All layers of one timeline (B = 1), `tokens` long. Rotary positions run `rope_delta` ahead after pictures.

    Where the MTP head is used, `mtp` has its keys and values, some rows fewer than there are tokens, and `tail` the
    hidden states [1, rows, H] of the tokens that it has not seen.
    """

    def __init__(self, config: TextConfig, dtype: mx.Dtype, kv: KvFormat = PLAIN):
        self.tokens = 0
        self.rope_delta = 0
        self.mtp = KeyValues(kv)
        self.tail: mx.array | None = None
        self.layers: list[KeyValues | Recurrent] = [
            KeyValues(kv) if kind == FULL else _empty_recurrent(config, dtype) for kind in config.layer_types
        ]

    @property
    def arrays(self) -> list[mx.array]:
        """Everything to evaluate."""
        found = []
        for layer in self.layers:
            found += layer.arrays if isinstance(layer, KeyValues) else [layer.conv, layer.delta]
        return found + self.mtp.arrays + ([self.tail] if self.tail is not None else [])

    @property
    def nbytes(self) -> int:
        return sum(array.nbytes for array in self.arrays)

    def snapshot(self) -> Snapshot:
        recurrent = tuple(layer.kept() for layer in self.layers if isinstance(layer, Recurrent))
        return Snapshot(self.tokens, self.rope_delta, recurrent, self.tail)

    def restore(self, snapshot: Snapshot) -> None:
        """Go back to a snapshot of this timeline: keys and values are cut to its length."""
        self.tokens, self.rope_delta = snapshot.tokens, snapshot.rope_delta
        saved = iter(snapshot.recurrent)
        for i, layer in enumerate(self.layers):
            if isinstance(layer, KeyValues):
                layer.length = snapshot.tokens
            else:
                self.layers[i] = next(saved).kept()
        self.tail = snapshot.tail
        self.mtp.length = 0 if self.tail is None else snapshot.tokens - self.tail.shape[1]

    def record(self) -> None:
        """Keep what `back_to` needs of the next few tokens: a state for each."""
        for layer in self.layers:
            if isinstance(layer, Recurrent):
                layer.trail = Trail()

    def back_to(self, tokens: int, start: int) -> None:
        """Be `tokens` long, at least start + 1: somewhere in the tokens since `record`, which began at `start`."""
        self.tokens, step = tokens, tokens - start
        for layer in self.layers:
            if isinstance(layer, KeyValues):
                layer.length = tokens
            elif layer.trail is not None and layer.trail.deltas is not None and layer.trail.inputs is not None:
                layer.delta = layer.trail.deltas[:, step - 1]
                layer.conv = layer.trail.inputs[:, step : step + layer.conv.shape[1]]

    def forget_trail(self) -> None:
        """Free what `record` kept."""
        for layer in self.layers:
            if isinstance(layer, Recurrent):
                layer.trail = None

    def branch(self, snapshot: Snapshot) -> "State":
        """Another timeline that begins as this one was at a snapshot of it."""
        other = copy(self)
        other.layers = [x.branch(snapshot.tokens) if isinstance(x, KeyValues) else x for x in self.layers]
        other.mtp = self.mtp.branch(min(self.mtp.length, snapshot.tokens))
        other.restore(snapshot)
        mx.eval(other.arrays)  # a lazy slice would keep all of the other's keys and values
        return other


def _empty_recurrent(c: TextConfig, dtype: mx.Dtype) -> Recurrent:
    conv = mx.zeros((1, c.linear_conv_kernel_dim - 1, c.conv_dim), dtype=dtype)
    delta = mx.zeros((1, c.linear_num_value_heads, c.linear_value_head_dim, c.linear_key_head_dim), dtype=mx.float32)
    return Recurrent(conv, delta)
