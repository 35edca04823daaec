"""How a memory budget is spent: a plan that is printed and tested before anything is loaded. Pure.

First what cannot be less (trunk, keys and values, recurrent state, the largest temporaries, two scratch groups), then
every byte left becomes expert slots. A budget below the floor is refused, never overrun.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ..checkpoint.files import TensorInfo
from ..errors import MemoryPlanError, UsageError
from .sight import Sight

UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}
PROCESS = 80 * 10**6  # bytes: Python, MLX, NumPy and our modules, loaded, measured on Linux (65 MB)
WORD = 1150  # bytes that the tokenizer takes for each entry of the vocabulary, measured with 248,044 of them
GROUP = 32  # experts in one scratch group: at the 397B's 6.7 MB, reads of 200 MB that any disk streams at full speed
PASS = 16384  # tokens; above it a sweep is bound by arithmetic on every machine
BLOCK = 512  # tokens of one block of the model
SNAPSHOT_SHARE = 0.05  # of what is left after the trunk and the context
SHARE = 0.10  # of what is left after the trunk, for the tokens of one pass
KEEP_HALF_FROM = 0.8  # coverage from which layers are completed rather than all grown
ROWS = 2048  # (token, expert) pairs computed at once in a sweep
SCORES = 1 << 28  # bytes of attention scores at once
SNAPSHOTS = (4, 32)  # of the recurrent state, at least and at most


@dataclass(frozen=True, slots=True)
class Geometry:
    """What a plan needs to know of a model. Sizes in bytes; `itemsize` is of an activation."""

    layers: int
    experts: int
    top_k: int
    expert_nbytes: int
    trunk_nbytes: int
    kv_per_token: int  # keys and values, all layers
    state_nbytes: int  # recurrent state and convolution tails of one timeline
    heads: int
    hidden: int
    intermediate: int
    vocab: int
    itemsize: int
    sight: Sight | None = None
    trail_nbytes: int = 0  # states to go back to when a guessed token turns out wrong

    @property
    def experts_nbytes(self) -> int:
        return self.layers * self.experts * self.expert_nbytes

    @property
    def token_nbytes(self) -> int:
        """Expert bytes of one token when nothing is in memory."""
        return self.layers * self.top_k * self.expert_nbytes


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    """Where the bytes of a budget go. `slots` are per layer, `group` the experts of one of the two scratch groups,
    `pass_tokens` the prompt tokens that go through the layers together."""

    geometry: Geometry
    budget: int
    context: int
    process: int
    kv: int
    state: int
    temporaries: int
    cache: int
    group: int
    pass_tokens: int
    slots: tuple[int, ...]
    snapshots: int
    vision: int = 0
    picture_tokens: int = 0  # of the largest picture; larger ones are shown smaller

    @property
    def picture_limit(self) -> int | None:
        """`picture_tokens` where that is less than some pictures would have in this context."""
        sight = self.geometry.sight
        return self.picture_tokens if sight and self.picture_tokens < min(self.context, sight.tokens) else None

    @property
    def resident(self) -> bool:
        """Whether every expert of every layer has a slot."""
        return all(n == self.geometry.experts for n in self.slots)

    @property
    def scratch(self) -> int:
        return 2 * self.group * self.geometry.expert_nbytes

    @property
    def slots_nbytes(self) -> int:
        return sum(self.slots) * self.geometry.expert_nbytes

    @property
    def total(self) -> int:
        return sum(size for _, size in self.items())

    def items(self) -> list[tuple[str, int]]:
        """What is reserved, by name, in bytes."""
        return [
            ("process", self.process),
            ("trunk", self.geometry.trunk_nbytes),
            (f"keys and values of {self.context} tokens", self.kv),
            (f"recurrent state and {self.snapshots} snapshots", self.state),
            (f"temporaries of {self.pass_tokens} prompt tokens", self.temporaries),
            ("MLX cache", self.cache),
            *([(f"vision, pictures of {self.picture_tokens} tokens", self.vision)] if self.geometry.sight else []),
            (f"2 x {self.group} experts under way", self.scratch),
            (
                f"{min(self.slots)}{f'-{max(self.slots)}' * (len(set(self.slots)) > 1)} experts a layer",
                self.slots_nbytes,
            ),
        ]


def parse_memory(text: str | int) -> int:
    """Bytes of "24GB" (10^9), "22.5GiB" (2^30), "800 MB" or a plain number of bytes."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]?I?B?)\s*", str(text).upper())
    unit = match[2] + ("B" if match[2] and not match[2].endswith("B") else "") if match else ""
    if match is None or unit not in UNITS or isinstance(text, bool):
        raise UsageError(f"memory must be a size like 24GB, 22.5GiB or 800MB, not {text!r}", "memory")
    return int(float(match[1]) * UNITS[unit])


def default_budget(total: int, available: int) -> int:
    """Without a wish: 65 % of the machine's memory, but only what is free now less a tenth. Larger shares made five of
    the nine published engines slower: they starve the page cache, or the system compresses."""
    return min(total * 65 // 100, available * 9 // 10)


def plan(geometry: Geometry, budget: int, context: int, metal: bool = False) -> MemoryPlan:
    """Spend `budget` bytes on a context of so many tokens. MemoryPlanError below the floor."""
    try:
        return _plan(geometry, budget, context, metal, frugal=False)
    except MemoryPlanError:  # more snapshots and larger pictures, because there is room for them, may leave too little
        return _plan(geometry, budget, context, metal, frugal=True)


def _plan(g: Geometry, budget: int, context: int, metal: bool, frugal: bool) -> MemoryPlan:
    kv = -(-context // 256) * 256 * g.kv_per_token * 5 // 4  # while a layer's buffer grows, old and new exist
    cache = (10**9 if budget >= 32 * 10**9 else 5 * 10**8) if metal else 0
    spare = budget - _process(g) - g.trunk_nbytes - kv - cache
    affordable = 0 if frugal else int(spare * SNAPSHOT_SHARE / g.state_nbytes)
    snapshots = min(max(SNAPSHOTS[0], affordable), SNAPSHOTS[1])
    state = g.state_nbytes * (2 + snapshots) + g.trail_nbytes  # in use, being computed, and kept
    pass_tokens = least = min(BLOCK, context)
    fixed = _process(g) + g.trunk_nbytes + kv + state + cache
    left = budget - fixed - _temporaries(g, least, context)
    picture = g.sight.chosen(context, _temporaries(g, least, context), 0 if frugal else left) if g.sight else 0

    def seeing(resident: bool = False) -> int:
        if g.sight is None:
            return 0
        return g.sight.beyond(picture, _temporaries(g, pass_tokens, context), resident) + g.sight.kept(context)

    left -= seeing()
    # A longer pass costs a little memory, but a prompt of two passes reads every expert twice.
    while pass_tokens + BLOCK <= min(context, PASS) and _between(g, pass_tokens + BLOCK - least) <= left * SHARE:
        pass_tokens += BLOCK
    temporaries = _temporaries(g, pass_tokens, context)
    if budget - fixed - temporaries - seeing(resident=True) >= g.experts_nbytes:
        slots, group, vision = (g.experts,) * g.layers, 0, seeing(resident=True)
    else:
        vision = seeing()
        left = budget - fixed - temporaries - vision
        group = min(g.experts, max(g.top_k, min(GROUP, int(left * SHARE / 2 / g.expert_nbytes))))
        if (left - 2 * group * g.expert_nbytes) // g.expert_nbytes < g.layers:
            pass_tokens, group = least, min(g.experts, g.top_k)
            temporaries, vision = _temporaries(g, least, context), seeing()
            fixed -= g.state_nbytes * (snapshots - SNAPSHOTS[0])
            state -= g.state_nbytes * (snapshots - SNAPSHOTS[0])
            snapshots = SNAPSHOTS[0]
            left = budget - fixed - temporaries - vision
        free = (left - 2 * group * g.expert_nbytes) // g.expert_nbytes
        if free < g.layers:
            floor = fixed + temporaries + vision + (2 * group + g.layers) * g.expert_nbytes
            raise MemoryPlanError(
                f"this model needs at least {gigabytes(floor)} with a context of {context} tokens, and the budget is "
                f"{gigabytes(budget)}: raise the memory budget or lower the context "
                f"(keys and values take {gigabytes(kv)})"
            )
        slots = spread(free, g.layers, g.experts)
    return MemoryPlan(
        g, budget, context, _process(g), kv, state, temporaries, cache, group, pass_tokens, slots, snapshots, vision,
        picture,
    )  # fmt: skip


def _process(g: Geometry) -> int:
    return PROCESS + WORD * g.vocab


def _between(g: Geometry, tokens: int) -> int:
    """Of tokens between layers: residual, normalised rows, shared and routed outputs, ids and scores."""
    return tokens * (g.hidden * (4 * g.itemsize + 4) + g.top_k * 16)


def _temporaries(g: Geometry, tokens: int, context: int) -> int:
    """The largest at any time: the tokens of a pass between layers, one block in a mixer, one group in a sweep."""
    block = min(tokens, BLOCK) * g.hidden * 4 * 16 + 3 * min(SCORES, g.heads * BLOCK * context * 4)
    sweep = ROWS * (g.hidden * (g.itemsize + 12) + 3 * g.intermediate * 4)
    return _between(g, tokens) + block + sweep + 4 * g.vocab * 4


def spread(slots: int, layers: int, experts: int) -> tuple[int, ...]:
    """So many slots over the layers: evenly, but near full coverage most layers are completed, because a complete layer
    need not wait for its router, while the others keep half of their experts."""
    if slots < KEEP_HALF_FROM * layers * experts:
        each, more = divmod(slots, layers)
        return tuple(each + (i < more) for i in range(layers))
    half = experts // 2
    complete = min(layers, (slots - layers * half) // (experts - half))
    rest = layers - complete
    if not rest:
        return (experts,) * layers
    each, more = divmod(slots - complete * experts, rest)
    # The last layers are completed: guesses about a next layer are worst there.
    return tuple(min(experts, each + (i < more)) for i in range(rest)) + (experts,) * complete


def trunk_nbytes(tensors: Mapping[str, TensorInfo], itemsize: int, mtp: bool = False) -> int:
    """What everything but routed experts, vision and (unless asked) MTP takes in memory, with activations of
    `itemsize` bytes."""
    return sum(_in_memory(name, tensor, itemsize) for name, tensor in trunk(tensors, mtp))


def vision_nbytes(tensors: Mapping[str, TensorInfo], itemsize: int) -> int:
    """What the vision tower takes in memory; 0 without one."""
    return sum(_in_memory(name, tensor, itemsize) for name, tensor in tensors.items() if name.startswith("visual."))


def trunk(tensors: Mapping[str, TensorInfo], mtp: bool = False) -> Iterable[tuple[str, TensorInfo]]:
    """The tensors (canonical names) that every token needs."""
    others = ("visual.",) if mtp else ("visual.", "mtp.")
    for name, tensor in tensors.items():
        routed = ".mlp.experts." in name or ".mlp.switch_mlp." in name
        if not routed and not name.startswith(others):
            yield name, tensor


def _in_memory(name: str, tensor: TensorInfo, itemsize: int) -> int:
    if tensor.dtype not in ("BF16", "F16", "F32"):
        return tensor.nbytes
    exact = "norm" in name or name.endswith((".A_log", ".dt_bias", ".conv1d.weight"))  # kept in float32
    return tensor.nbytes // (4 if tensor.dtype == "F32" else 2) * (4 if exact else itemsize)


def gigabytes(nbytes: float) -> str:
    return f"{nbytes / 1e9:.2f} GB" if nbytes >= 1e9 else f"{nbytes / 1e6:.2f} MB"
