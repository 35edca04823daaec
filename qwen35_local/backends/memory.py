"""From a wish for memory to a plan, and from a plan to streamed experts."""

from collections.abc import Sequence
from pathlib import Path

import mlx.core as mx

from ..config import Streaming
from ..experts.budget import Geometry, MemoryPlan, default_budget, parse_memory, plan
from ..experts.governor import Governor
from ..experts.host import available_memory, total_memory
from ..experts.layout import LayerLayout
from ..experts.sight import Sight
from ..experts.source import Source
from ..experts.store import INDEX, check_origin, open_store
from ..model.config import ModelConfig, TextConfig
from ..model.kv_format import PLAIN, KvFormat
from ..model.stream import ExpertStream, geometry
from ..model.weights import Weights

STORE = "experts"  # the packed store, a directory beside the checkpoint's files
CONTEXT = 32768  # tokens of a streamed model if none are asked for: keys and values compete with experts for memory


def expert_layouts(
    path: Path, weights: Weights, c: TextConfig, mtp: bool = False, store: Path | None = None
) -> list[LayerLayout]:
    """Where the experts are: in the packed `store` if one is named, or there is one in the model directory; else in the
    checkpoint's own files. Those of the MTP head, if asked for, come last; they are in no store."""
    layouts = weights.expert_layouts(c)
    if store is not None or (path / STORE / INDEX).exists():
        packed = open_store(store or path / STORE)
        check_origin(packed, layouts)
        layouts = packed
    return layouts + ([weights.mtp_layout(c)] if mtp else [])


def plan_memory(
    layouts: Sequence[LayerLayout],
    weights: Weights,
    config: ModelConfig,
    memory: str | int | None,
    context: int | None,
    drafts: int = 0,
    sight: Sight | None = None,
    kv: KvFormat = PLAIN,
) -> MemoryPlan:
    """The plan for a wish; without one, for a share of what is free. `drafts` tokens are guessed ahead, by the MTP head
    that `layouts` then hold, too. `sight` is None for a model that cannot see. Nothing is read."""
    c = config.text
    g = geometry(weights, layouts, c, sight, drafts, kv)
    if memory is not None:
        return plan_for(g, parse_memory(memory), context, c.max_position_embeddings)
    return plan_for(g, default_budget(total_memory(), available_memory()), context, c.max_position_embeddings)


def plan_for(g: Geometry, budget: int, context: int | None, most: int, metal: bool | None = None) -> MemoryPlan:
    """`context` None takes the model's, `most`, if everything fits beside it, else what a streamed model gets."""
    metal = mx.metal.is_available() if metal is None else metal
    if context is None:
        context = min(most, CONTEXT)
        spare = budget - plan(g, budget, context, metal=metal).total
        if spare < (most - context) * g.kv_per_token * 5 // 4:
            return plan(g, budget, context, metal=metal)
        context = most
    return plan(g, budget, context, metal=metal)


def open_stream(layouts: Sequence[LayerLayout], c: TextConfig, chosen: MemoryPlan, how: Streaming) -> ExpertStream:
    """The banks of a plan, empty."""
    if mx.metal.is_available():
        mx.set_cache_limit(chosen.cache)
    source = Source(how.direct, how.workers)
    return ExpertStream(
        layouts,
        chosen.slots,
        chosen.group,
        source,
        c,
        how.lookahead,
        how.layer_stats,
        Governor if how.elastic else None,
    )
