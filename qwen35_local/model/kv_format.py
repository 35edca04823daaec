"""In how many bits keys and values are kept. Pure: plans need it where no model is loaded."""

from dataclasses import dataclass

from ..errors import UsageError

GROUP = 64  # channels that share a scale and a bias, as in mlx-lm
KV_BITS = (16, 8, 4)


@dataclass(frozen=True, slots=True)
class KvFormat:
    """How keys and values are kept: as computed (`bits` None), in a 16-bit float, or affine in `bits` bits."""

    bits: int | None = None

    def __post_init__(self) -> None:
        if self.bits not in (None, *KV_BITS):
            raise UsageError(f"kv_bits must be {', '.join(map(str, KV_BITS))} or none, not {self.bits!r}", "kv_bits")

    @property
    def quantised(self) -> bool:
        return self.bits is not None and self.bits < 16

    def check(self, head_dim: int) -> None:
        """UsageError if heads of this size cannot be kept so."""
        if self.quantised and head_dim % GROUP:
            raise UsageError(
                f"kv_bits {self.bits} needs heads of a multiple of {GROUP} channels, and these have {head_dim}",
                "kv_bits",
            )

    def nbytes(self, head_dim: int, itemsize: int) -> int:
        """Of one key or value of one head; `itemsize` is of an activation."""
        if self.bits is None:
            return head_dim * itemsize
        if not self.quantised:
            return head_dim * 2
        return head_dim * self.bits // 8 + 2 * head_dim // GROUP * itemsize


PLAIN = KvFormat()
