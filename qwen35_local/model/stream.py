"""The streamed experts of a whole model: its banks, the memory that they share, and the numbers of what they did."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from time import perf_counter
from typing import Any

import mlx.core as mx

from ..experts.bank import LayerBank
from ..experts.budget import Geometry, trunk_nbytes
from ..experts.governor import Governor
from ..experts.hotset import begin
from ..experts.layout import LayerLayout
from ..experts.lookahead import Lookahead
from ..experts.sight import Sight
from ..experts.slots import Slots
from ..experts.source import Source
from ..experts.telemetry import Totals
from .config import FULL, TextConfig
from .kv_format import PLAIN, KvFormat
from .streamed import StreamedExperts
from .weights import Weights


class ExpertStream:
    """The streamed experts of a whole model: banks of `slots[i]` for layer i, two scratch groups that all share."""

    def __init__(
        self,
        layouts: Sequence[LayerLayout],
        slots: Sequence[int],
        scratch: int,
        source: Source,
        c: TextConfig,
        lookahead: int = 0,
        layer_stats: bool = False,
        elastic: Callable[[int], Governor] | None = None,
    ):
        """`scratch` is the slots of one group; `lookahead` the experts read ahead for a layer, 0 for none; `elastic`
        makes a governor for the bytes of all slots."""
        self.layer_stats = layer_stats
        self._planned = tuple(slots)
        self.source = source
        self.lookahead = Lookahead(lookahead) if lookahead else None
        for file in {file for layout in layouts for file in layout.files}:
            source.open(file)  # from now on a change of any is noticed
        kinds = {layout.parts for layout in layouts}
        self._scratch = {parts: (Slots(parts, scratch), Slots(parts, scratch)) for parts in kinds}
        self.banks = tuple(
            LayerBank(layout, Slots(layout.parts, n), source) for layout, n in zip(layouts, slots, strict=True)
        )
        planned = sum(n * bank.layout.expert_nbytes for n, bank in zip(slots, self.banks, strict=True))
        self._governor = elastic(planned) if elastic else None
        self.experts = [
            StreamedExperts(bank, self._scratch[bank.layout.parts], c, self.lookahead) for bank in self.banks
        ]

    @property
    def nbytes(self) -> int:
        """Of all slots."""
        scratch = sum(slots.nbytes for pair in self._scratch.values() for slots in pair)
        return scratch + sum(bank.slots.nbytes for bank in self.banks)

    def fill(
        self, on_progress: Callable[[int], None] | None = None, hot: Mapping[str, Sequence[int]] | None = None
    ) -> None:
        """Load the layers that fit completely; the others begin with the experts in `hot`, by layer name, or empty."""
        for bank in self.banks:
            if bank.complete:
                bank.fill(range(bank.layout.experts))
            elif hot:
                begin(bank, hot.get(bank.layout.name, ()))
            if on_progress is not None:
                on_progress(self.source.counters.bytes)

    def totals(self) -> Totals:
        """What has happened since the start, in numbers."""
        banks, disk = [bank.counters for bank in self.banks], self.source.counters
        return Totals(
            hits=sum(c.hits + c.joined for c in banks),
            misses=sum(c.misses for c in banks),
            guessed=sum(c.guessed for c in banks),
            useful=sum(c.useful for c in banks),
            nbytes=disk.bytes,
            busy=disk.busy,
            stall=sum(c.stall for c in banks),
            retries=disk.retries,
        )

    def breathe(self) -> None:
        """Between passes: give slots back if the machine is short of memory, all at once; take them again a layer at a
        time, since a larger bank is a copy of the smaller."""
        if self._governor is None:
            return
        share, resized = self._governor.share(), 0
        for bank, planned in zip(self.banks, self._planned, strict=True):
            count = max(1, int(planned * share))
            if count < bank.slots.count or (count > bank.slots.count and not resized):
                bank.resize(count)
                resized += 1
        if resized:
            mx.clear_cache()

    def meter(self) -> Callable[[], dict[str, Any]]:
        """Begin to measure; what it returns says what has happened since, as `Done.stats.extra["experts"]` has it."""
        before, began = self.totals(), perf_counter()
        layers = [replace(bank.counters) for bank in self.banks] if self.layer_stats else []

        def report() -> dict[str, Any]:
            found = (self.totals() - before).report(perf_counter() - began)
            if layers:
                pairs = zip(self.banks, layers, strict=True)
                found["layers"] = [bank.counters.since(old) | {"slots": bank.slots.count} for bank, old in pairs]
            return found

        return report

    def close(self) -> None:
        self.source.close()


def geometry(
    weights: Weights,
    layouts: Sequence[LayerLayout],
    c: TextConfig,
    sight: Sight | None = None,
    drafts: int = 0,
    kv: KvFormat = PLAIN,
) -> Geometry:
    """What a memory plan needs to know of this model; no tensor is read. `sight` is None for one that cannot see. With
    `drafts` it has its MTP head, one more layer of attention, and keeps a state for each of so many tokens. `kv` is how
    keys and values are kept."""
    itemsize = weights.dtype.size
    full = sum(kind == FULL for kind in c.layer_types)
    linear, heads = c.num_layers - full, full + bool(drafts)
    delta = c.linear_num_value_heads * c.linear_value_head_dim * c.linear_key_head_dim * 4
    conv = (c.linear_conv_kernel_dim - 1) * c.conv_dim * itemsize
    return Geometry(
        layers=len(layouts),
        experts=c.num_experts,
        top_k=c.num_experts_per_tok,
        expert_nbytes=max(layout.expert_nbytes for layout in layouts),
        trunk_nbytes=trunk_nbytes(weights.tensors, itemsize, mtp=bool(drafts)),
        kv_per_token=heads * 2 * c.num_key_value_heads * kv.nbytes(c.head_dim, itemsize),
        state_nbytes=linear * (delta + conv),
        trail_nbytes=(drafts + 1) * linear * delta if drafts else 0,
        heads=c.num_attention_heads,
        hidden=c.hidden_size,
        intermediate=c.moe_intermediate_size,
        vocab=c.vocab_size,
        itemsize=itemsize,
        sight=sight,
    )
