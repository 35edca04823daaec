"""Muon for the matrices, AdamW for the rest."""

from collections import defaultdict

import torch  # pyright: ignore[reportMissingImports]
from torch import Tensor, nn  # pyright: ignore[reportMissingImports]

MATRICES = ("in_proj_qkv", "in_proj_z", "out_proj", "q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj",
            "gate_up_proj", "down_proj", "mtp.fc", "attn.qkv", "attn.proj", "linear_fc1", "linear_fc2")  # fmt: skip


def is_matrix(name: str) -> bool:
    return name.removesuffix(".weight").endswith(MATRICES)


def orthogonal(X: Tensor, steps: int = 5) -> Tensor:
    """[n, r, c] -> nearly orthogonal, by Newton-Schulz (the quintic of Muon)."""
    X = X / (X.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    X = X.bfloat16()
    wide = X.shape[-2] > X.shape[-1]
    X = X.mT.contiguous() if wide else X
    for _ in range(steps):
        A = X @ X.mT
        X = 3.4445 * X + (-4.7750 * A + 2.0315 * A @ A) @ X
    return (X.mT if wide else X).float()


class Optimiser:
    """`step(scale)` applies the gradients with both learning rates scaled."""

    def __init__(self, model: nn.Module, muon_rate: float = 0.02, adam_rate: float = 3e-3):
        named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
        self.muon_rate, self.adam_rate = muon_rate, adam_rate
        self.matrices = [p for name, p in named if is_matrix(name)]
        self.others = [p for name, p in named if not is_matrix(name)]
        self.adam = torch.optim.AdamW(self.others, lr=adam_rate, betas=(0.9, 0.95), weight_decay=0.0, fused=True)
        self.momentum = [torch.zeros_like(p) for p in self.matrices]

    @torch.no_grad()
    def step(self, scale: float) -> None:
        groups: dict[tuple[int, int], list[tuple[Tensor, Tensor]]] = defaultdict(list)
        for p, m in zip(self.matrices, self.momentum, strict=True):
            if p.grad is None:
                continue
            m.lerp_(p.grad, 0.05)
            update = p.grad.lerp(m, 0.95)
            target = p
            if p.ndim == 3 and p.shape[1] > p.shape[2] / 2 and p.shape[1] % 2 == 0 and p.shape[2] > 64:  # gate | up
                update, target = (t.view(-1, t.shape[1] // 2, t.shape[2]) for t in (update, p.data))
            for stack in (update, target):
                assert stack.ndim in (2, 3)
            pairs = [(update, target)] if update.ndim == 3 else [(update[None], target.data[None])]
            groups[update.shape[-2], update.shape[-1]] += pairs
        for (rows, columns), pairs in groups.items():
            new = orthogonal(torch.cat([update for update, _ in pairs]))
            rate = self.muon_rate * scale * max(1, rows / columns) ** 0.5
            for piece, (_, target) in zip(new.split([len(u) for u, _ in pairs]), pairs, strict=True):
                target.data.sub_(piece, alpha=rate)
        torch.nn.utils.clip_grad_norm_(self.others, 1.0)
        self.adam.param_groups[0]["lr"] = self.adam_rate * scale
        self.adam.step()

    def zero_grad(self) -> None:
        for p in [*self.matrices, *self.others]:
            p.grad = None

    def state(self) -> dict[str, object]:
        return {"adam": self.adam.state_dict(), "momentum": self.momentum}

    def load(self, state: dict) -> None:
        self.adam.load_state_dict(state["adam"])
        for m, saved in zip(self.momentum, state["momentum"], strict=True):
            m.copy_(saved)
