"""Muon for the matrices (orthogonalised momentum, update RMS matched to Adam's), AdamW for everything else."""

import torch


def orthogonalise(g, steps=5):
    """Newton-Schulz iteration towards the nearest semi-orthogonal matrix, batched: [B, R, C] with R <= C."""
    a, b, c = 3.4445, -4.7750, 2.0315
    x = g.bfloat16()
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(steps):
        s = x @ x.mT
        x = a * x + (b * s + c * s @ s) @ x
    return x


class Muon:
    def __init__(self, params, momentum=0.95, weight_decay=0.1):
        self.momentum, self.weight_decay = momentum, weight_decay
        self.groups = {}
        for p in params:
            rows, cols = p.shape[-2:]
            self.groups.setdefault((min(rows, cols), max(rows, cols)), []).append(p)
        self.buffers = {p: torch.zeros_like(p) for group in self.groups.values() for p in group}

    @torch.no_grad()
    def step(self, lr):
        for (rows, cols), group in self.groups.items():
            grads = [p.grad for p in group]
            buffers = [self.buffers[p] for p in group]
            torch._foreach_lerp_(buffers, grads, 1 - self.momentum)
            updates = torch._foreach_lerp(grads, buffers, self.momentum)
            flat = [u if u.shape[-2] == rows else u.mT for u in updates]
            flat = [u if u.dim() == 3 else u[None] for u in flat]
            ortho = orthogonalise(torch.cat(flat)).float().split([u.shape[0] for u in flat])
            ortho = [o if u.shape[-2] == rows else o.mT for o, u in zip(ortho, updates)]
            ortho = [o if u.dim() == 3 else o[0] for o, u in zip(ortho, updates)]
            torch._foreach_mul_(group, 1 - lr * self.weight_decay)
            torch._foreach_add_(group, ortho, alpha=-lr * 0.2 * cols ** 0.5)


def make_optimisers(model):
    """(Muon over the fp8 matrices, AdamW over embedding, router and norms)."""
    from model import Weight

    matrices = [m.weight for m in model.modules() if isinstance(m, Weight)]
    chosen = {id(p) for p in matrices}
    rest = [p for p in model.parameters() if id(p) not in chosen]
    fused = rest[0].is_cuda
    return Muon(matrices), torch.optim.AdamW(rest, lr=1e-3, betas=(0.9, 0.95), weight_decay=0.0, fused=fused)
