"""The gated delta rule over chunks, differentiable, in f32."""

import torch  # pyright: ignore[reportMissingImports]
from torch import Tensor  # pyright: ignore[reportMissingImports]

CHUNK = 32


def decays(g: Tensor) -> tuple[Tensor, Tensor]:
    """g [..., C] -> its running sum and exp(G_i - G_j) below and on the diagonal, masked before the exp."""
    G = g.cumsum(-1)
    C = g.shape[-1]
    lower = torch.ones(C, C, dtype=torch.bool, device=g.device).tril()
    D = (G[..., :, None] - G[..., None, :]).masked_fill(~lower, float("-inf")).exp()
    return G, D


def delta_rule(q: Tensor, k: Tensor, v: Tensor, g: Tensor, beta: Tensor, state: Tensor | None) -> tuple[Tensor, Tensor]:
    """q, k [B, T, H, K], v [B, T, H, V], g and beta [B, T, H], state [B, H, K, V] -> o [B, T, H, V], state.

    T is a multiple of the chunk. The chain of states runs alone; the outputs follow in one batched product.
    """
    B, T, H, K = k.shape
    V, N = v.shape[-1], T // CHUNK
    q, k, v = (t.transpose(1, 2).reshape(B, H, N, CHUNK, -1) for t in (q, k, v))
    g, beta = (t.transpose(1, 2).reshape(B, H, N, CHUNK) for t in (g, beta))
    G, D = decays(g)
    grown = G.exp()[..., None]
    kb = k * beta[..., None]
    A = ((kb @ k.mT) * D).tril(-1)
    solved = torch.linalg.solve_triangular(
        A, torch.cat([v * beta[..., None], kb * grown], -1), upper=False, unitriangular=True
    )
    U, W = solved.split([V, K], -1)
    end = G[..., -1:]
    kend = (k * (end - G).exp()[..., None]).mT  # [B, H, N, K, C]
    fade = end.exp()[..., None]
    S = q.new_zeros(B, H, K, V) if state is None else state
    states, news = [], []
    for n in range(N):
        states.append(S)
        new = U[:, :, n] - W[:, :, n] @ S
        news.append(new)
        S = fade[:, :, n] * S + kend[:, :, n] @ new
    before, new = torch.stack(states, 2), torch.stack(news, 2)
    o = (q * grown) @ before + ((q @ k.mT) * D) @ new
    return o.reshape(B, H, T, V).transpose(1, 2), S
