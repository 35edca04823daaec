"""The architecture in torch, for training: names and shapes as released, rows packed with several conversations.

`Rows` says where conversations begin; every mixer starts afresh there. A row may also continue a prefix (`Past`), so
that many conversations share one computed set of tool descriptions.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch  # pyright: ignore[reportMissingImports]
import torch.nn.functional as F  # pyright: ignore[reportMissingImports]
from torch import Tensor, nn  # pyright: ignore[reportMissingImports]

from .delta import delta_rule
from .mxfp4 import rounding
from .torch_vision import Grid, Tower, VisionShape

EPS = 1e-6
RESET = -50.0  # added to the log-decay of a first token: the state before it is forgotten


@dataclass(frozen=True)
class Shape:
    """The sizes of the miniature (defaults), as in its config.json."""

    vocab: int = 2112
    hidden: int = 192
    layers: int = 8
    interval: int = 4
    heads: int = 4
    kv_heads: int = 2
    head_dim: int = 64
    rotary: int = 16
    theta: float = 1e7
    gdn_k_heads: int = 2
    gdn_v_heads: int = 4
    gdn_dim: int = 64
    conv: int = 4
    experts: int = 16
    top_k: int = 4
    moe: int = 64
    shared: int = 64


@dataclass
class Rows:
    """What the mixers need to know about a batch [B, T]."""

    taps: Tensor  # [B, T, conv-1] 1 where the token 1, 2, 3 places before is of the same conversation
    first: Tensor  # [B, T] True at the first token of a conversation
    mask: Tensor  # [B, 1, T, P+T] may attend
    cos: Tensor  # [T, rotary/2], or [B, T, rotary/2]
    sin: Tensor

    @classmethod
    def of(cls, shape: Shape, segments: Tensor, past: Tensor | None = None, positions: Tensor | None = None) -> "Rows":
        """`segments` [B, T] numbers the conversations; `past` [B, P] those of the prefix that the rows continue.

        `positions` [3, B, T] (time, height, width) are those of rows with pictures; else tokens are counted.
        """
        whole = segments if past is None else torch.cat([past, segments], 1)
        start, total = whole.shape[1] - segments.shape[1], whole.shape[1]
        same = [F.pad(whole[:, j:] == whole[:, :-j], (j, 0)) for j in range(1, shape.conv)]
        taps = torch.stack(same, -1)[:, start:]
        causal = torch.ones(total, total, dtype=torch.bool).tril()[start:]
        mask = (segments[:, :, None] == whole[:, None, :]) & causal
        inverse = shape.theta ** (-torch.arange(0, shape.rotary, 2).float() / shape.rotary)
        if positions is None:
            angles = torch.arange(start, total).float()[:, None] * inverse
        else:  # interleaved: frequency i turns with time, height or width by i % 3
            axis = torch.arange(len(inverse)) % 3
            angles = positions.float()[axis].permute(1, 2, 0) * inverse
        return cls(taps.float(), ~taps[..., 0], mask[:, None], angles.cos(), angles.sin())


def norm(x: Tensor, weight: Tensor) -> Tensor:
    """Zero-centred RMSNorm in f32."""
    x = x.float()
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + EPS) * (1 + weight)


def gated_norm(o: Tensor, weight: Tensor, z: Tensor) -> Tensor:
    o = o * torch.rsqrt(o.square().mean(-1, keepdim=True) + EPS)
    return weight * o * F.silu(z.float())


def short_conv(x: Tensor, weight: Tensor, taps: Tensor) -> Tensor:
    """x [B, 3+T, C] with what came before in front, weight [C, 4], taps [B, T, 3] -> [B, T, C]."""
    T = taps.shape[1]
    x = x.float()
    out = x[:, 3:] * weight[:, 3]
    for j in range(1, 4):
        out = out + x[:, 3 - j : 3 - j + T] * taps[..., j - 1, None] * weight[:, 3 - j]
    return F.silu(out)


def unit(x: Tensor) -> Tensor:
    return x * torch.rsqrt(x.square().sum(-1, keepdim=True) + EPS)


def swiglu(gate_up: Tensor) -> Tensor:
    gate, up = gate_up.chunk(2, -1)
    return F.silu(gate) * up


def weighted_swiglu(gate_up: Tensor, weights: Tensor) -> Tensor:
    """[N, E, 2I] and [N, E] -> [N, E, I]."""
    return swiglu(gate_up) * weights[..., None].to(gate_up.dtype)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary on the first dims of x [B, T, H, D]: pairs (i, i + half)."""
    half = cos.shape[-1]
    a, b, rest = x[..., :half], x[..., half : 2 * half], x[..., 2 * half :]
    cos, sin = cos.unsqueeze(-2), sin.unsqueeze(-2)
    return torch.cat([a * cos - b * sin, b * cos + a * sin, rest], -1)


class Linear(nn.Module):
    def __init__(self, inputs: int, outputs: int, scale: float = 1.0):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs) * scale / inputs**0.5)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight)


class Scale(nn.Module):
    """A norm's weight."""

    def __init__(self, size: int, value: float = 0.0):
        super().__init__()
        self.weight = nn.Parameter(torch.full((size,), value))


class DeltaNet(nn.Module):
    def __init__(self, shape: Shape, scale: float):
        super().__init__()
        self.k_dim, self.v_dim = shape.gdn_k_heads * shape.gdn_dim, shape.gdn_v_heads * shape.gdn_dim
        self.shape = shape
        channels = 2 * self.k_dim + self.v_dim
        self.in_proj_qkv = Linear(shape.hidden, channels)
        self.in_proj_z = Linear(shape.hidden, self.v_dim)
        self.in_proj_b = Linear(shape.hidden, shape.gdn_v_heads)
        self.in_proj_a = Linear(shape.hidden, shape.gdn_v_heads, 0.1)
        self.conv1d = nn.Module()
        self.conv1d.weight = nn.Parameter(torch.randn(channels, 1, shape.conv) * 0.3)
        self.A_log = nn.Parameter(torch.empty(shape.gdn_v_heads).uniform_(1, 8).log())
        step = torch.empty(shape.gdn_v_heads).uniform_(-6.9, -2.3).exp()  # .001 to .1
        self.dt_bias = nn.Parameter(step + torch.log(-torch.expm1(-step)))  # inverse softplus
        self.norm = Scale(shape.gdn_dim, 1.0)
        self.out_proj = Linear(self.v_dim, shape.hidden, scale)

    def forward(
        self, x: Tensor, rows: Rows, past: tuple[Tensor, Tensor] | None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """x [B, T, D] -> same; past is (the last 3 inputs of the convolution, state [B, H, K, V])."""
        s, (B, T, _) = self.shape, x.shape
        qkv = self.in_proj_qkv(x)
        z = self.in_proj_z(x).view(B, T, s.gdn_v_heads, s.gdn_dim)
        tail = qkv.new_zeros(B, s.conv - 1, qkv.shape[-1]) if past is None else past[0]
        qkv = torch.cat([tail, qkv], 1)
        with torch.autocast("cpu", enabled=False):
            c = kernels.short_conv(qkv, self.conv1d.weight[:, 0], rows.taps)
            q, k, v = c.split([self.k_dim, self.k_dim, self.v_dim], -1)
            repeat = s.gdn_v_heads // s.gdn_k_heads
            q, k = (kernels.unit(t.view(B, T, s.gdn_k_heads, s.gdn_dim)).repeat_interleave(repeat, 2) for t in (q, k))
            v = v.view(B, T, s.gdn_v_heads, s.gdn_dim)
            x = x.float()
            beta = F.linear(x, self.in_proj_b.weight).sigmoid()
            g = -self.A_log.exp() * F.softplus(F.linear(x, self.in_proj_a.weight) + self.dt_bias)
            g = g + rows.first[..., None] * RESET
            o, state = delta_rule(q * s.gdn_dim**-0.5, k, v, g, beta, None if past is None else past[1])
            o = kernels.gated_norm(o, self.norm.weight, z)
        return self.out_proj(o.reshape(B, T, -1)), (qkv[:, -3:], state)


class Attention(nn.Module):
    def __init__(self, shape: Shape, scale: float):
        super().__init__()
        self.shape = shape
        self.q_proj = Linear(shape.hidden, shape.heads * shape.head_dim * 2)
        self.k_proj = Linear(shape.hidden, shape.kv_heads * shape.head_dim)
        self.v_proj = Linear(shape.hidden, shape.kv_heads * shape.head_dim)
        self.o_proj = Linear(shape.heads * shape.head_dim, shape.hidden, scale)
        self.q_norm, self.k_norm = Scale(shape.head_dim), Scale(shape.head_dim)

    def forward(
        self, x: Tensor, rows: Rows, past: tuple[Tensor, Tensor] | None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """x [B, T, D] -> same; past is (keys, values) [B, P, Hkv, D]."""
        s, (B, T, _) = self.shape, x.shape
        q, gate = self.q_proj(x).view(B, T, s.heads, 2 * s.head_dim).chunk(2, -1)
        k = self.k_proj(x).view(B, T, s.kv_heads, s.head_dim)
        v = self.v_proj(x).view(B, T, s.kv_heads, s.head_dim)
        q = kernels.rotate(kernels.norm(q, self.q_norm.weight), rows.cos, rows.sin).to(v.dtype)
        k = kernels.rotate(kernels.norm(k, self.k_norm.weight), rows.cos, rows.sin).to(v.dtype)
        if past is not None:
            k, v = torch.cat([past[0], k], 1), torch.cat([past[1], v], 1)
        repeat = s.heads // s.kv_heads
        keys, values = (t.repeat_interleave(repeat, 2).transpose(1, 2) for t in (k, v))
        o = F.scaled_dot_product_attention(q.transpose(1, 2), keys, values, attn_mask=rows.mask)
        o = o.transpose(1, 2) * gate.sigmoid()
        return self.o_proj(o.reshape(B, T, -1)), (k, v)


class Experts(nn.Module):
    def __init__(self, shape: Shape, scale: float):
        super().__init__()
        self.gate_up_proj = nn.Parameter(torch.randn(shape.experts, 2 * shape.moe, shape.hidden) / shape.hidden**0.5)
        self.down_proj = nn.Parameter(torch.randn(shape.experts, shape.hidden, shape.moe) * scale / shape.moe**0.5)


class Moe(nn.Module):
    """All experts in one product, weighted by the router: cheaper than sorting at this size."""

    quantise = False  # routed experts see their MXFP4 values, gradients pass straight through

    def __init__(self, shape: Shape, scale: float):
        super().__init__()
        self.shape = shape
        self.gate = Linear(shape.hidden, shape.experts)
        self.experts = Experts(shape, scale)
        self.shared_expert = nn.ModuleDict({
            "gate_proj": Linear(shape.hidden, shape.shared),
            "up_proj": Linear(shape.hidden, shape.shared),
            "down_proj": Linear(shape.shared, shape.hidden, scale),
        })  # fmt: skip
        self.shared_expert_gate = Linear(shape.hidden, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """x [B, T, D] -> same, and the load-balancing loss."""
        s, (B, T, D) = self.shape, x.shape
        x = x.reshape(-1, D)
        with torch.autocast("cpu", enabled=False):
            p = F.linear(x.float(), self.gate.weight).softmax(-1)
            best, index = p.topk(s.top_k)
            weights = torch.zeros_like(p).scatter(1, index, best / best.sum(-1, keepdim=True))
            share = (weights.detach() > 0).float().mean(0) / s.top_k
            balance = s.experts * (share * p.mean(0)).sum()
        up, down = self.experts.gate_up_proj, self.experts.down_proj
        if Moe.quantise:
            with torch.autocast("cpu", enabled=False):
                up, down = (w + kernels.rounding(w.detach()) for w in (up, down))
        h = F.linear(x, up.reshape(-1, D)).view(-1, s.experts, 2 * s.moe)
        h = kernels.weighted_swiglu(h, weights)
        y = F.linear(h.reshape(len(x), -1), down.transpose(0, 1).reshape(D, -1))
        shared = self.shared_expert
        h = F.silu(shared["gate_proj"](x)) * shared["up_proj"](x)
        y = y + self.shared_expert_gate(x).sigmoid() * shared["down_proj"](h)
        return y.view(B, T, D), balance


class Layer(nn.Module):
    def __init__(self, shape: Shape, full: bool):
        super().__init__()
        scale = 0.5 / (2 * shape.layers) ** 0.5
        self.full = full
        self.input_layernorm, self.post_attention_layernorm = Scale(shape.hidden), Scale(shape.hidden)
        if full:
            self.self_attn = Attention(shape, scale)
        else:
            self.linear_attn = DeltaNet(shape, scale)
        self.mlp = Moe(shape, scale)

    def forward(self, x: Tensor, rows: Rows, past=None):
        mixer = self.self_attn if self.full else self.linear_attn
        y, past = mixer(kernels.norm(x, self.input_layernorm.weight), rows, past)
        x = x + y
        y, balance = self.mlp(kernels.norm(x, self.post_attention_layernorm.weight))
        return x + y, past, balance


class Model(nn.Module):
    """`forward` gives hidden states; `logits` only for the rows asked for, which are few."""

    def __init__(self, shape: Shape, vision: VisionShape | None = None):
        super().__init__()
        self.shape = shape
        self.embed_tokens = nn.Module()
        self.embed_tokens.weight = nn.Parameter(torch.randn(shape.vocab, shape.hidden) * 0.3)
        self.layers = nn.ModuleList(Layer(shape, (i + 1) % shape.interval == 0) for i in range(shape.layers))
        self.norm = Scale(shape.hidden)
        self.lm_head = Linear(shape.hidden, shape.vocab, 0.5)
        self.mtp = Mtp(shape)
        if vision:
            self.visual = Tower(vision)

    def embed(self, ids: Tensor, pictures: Sequence[tuple[Tensor, Grid]] = (), pads=None) -> Tensor:
        """[B, T, D]: of the tokens, and what the tower makes of the pictures at their pad tokens (row, column)."""
        x = self.embed_tokens.weight[ids]
        return x.index_put(pads, self.visual(pictures).to(x.dtype)) if pictures else x

    def forward(self, x: Tensor, rows: Rows, past: list | None = None) -> tuple[Tensor, list, Tensor]:
        """x [B, T, D] -> hidden after the final norm [B, T, D], what a continuation needs, load-balancing loss."""
        new, balance = [], x.new_zeros(())
        for index, layer in enumerate(self.layers):
            x, state, extra = layer(x, rows, past[index] if past else None)
            new.append(state)
            balance = balance + extra / len(self.layers)
        return norm(x, self.norm.weight), new, balance


class Mtp(nn.Module):
    """The multi-token head: from the hidden state and the next token, the token after that."""

    def __init__(self, shape: Shape):
        super().__init__()
        self.fc = Linear(2 * shape.hidden, shape.hidden)
        self.pre_fc_norm_embedding, self.pre_fc_norm_hidden = Scale(shape.hidden), Scale(shape.hidden)
        self.layers = nn.ModuleList([Layer(shape, full=True)])
        self.norm = Scale(shape.hidden)

    def forward(self, hidden: Tensor, embedded: Tensor, rows: Rows) -> tuple[Tensor, Tensor]:
        """hidden [B, T, D] of tokens t, embedded [B, T, D] of tokens t+1 -> hidden for t+2, load-balancing loss."""
        e, h = norm(embedded, self.pre_fc_norm_embedding.weight), norm(hidden, self.pre_fc_norm_hidden.weight)
        x, _, balance = self.layers[0](self.fc(torch.cat([e, h], -1)), rows)
        return norm(x, self.norm.weight), balance


class Kernels:
    """The element-wise pieces, compiled if asked: most of the time is here, not in the products."""

    norm: Callable[..., Tensor]
    gated_norm: Callable[..., Tensor]
    short_conv: Callable[..., Tensor]
    unit: Callable[..., Tensor]
    weighted_swiglu: Callable[..., Tensor]
    rotate: Callable[..., Tensor]
    rounding: Callable[..., Tensor]

    def __init__(self) -> None:
        self.plain = {f.__name__: f for f in (norm, gated_norm, short_conv, unit, weighted_swiglu, rotate, rounding)}
        self.compiled: dict[str, object] = {}
        vars(self).update(self.plain)

    def compile(self) -> None:
        torch._dynamo.config.recompile_limit = 64  # every shape of batch is compiled once
        self.compiled = {name: torch.compile(f, dynamic=False) for name, f in self.plain.items()}
        vars(self).update(self.compiled)

    @contextmanager
    def eager(self) -> Iterator[None]:
        """For shapes that come once."""
        vars(self).update(self.plain)
        yield
        vars(self).update(self.compiled)


kernels = Kernels()
