"""DeepSeek-V3's architecture in small: MLA, one dense layer, MoE layers, one MTP layer.

Tokens are a flat list of N; rows of the batch and the documents packed in them are told apart by `Packing`.
Weights are float32 masters, passed through the fp8 rounding when `qat` is 1, and used in `dtype`.
The routed experts are computed densely (every expert, unselected ones weighted by zero): at this size
that is quicker on a GPU than sorting tokens by expert, and exactly the same function.
"""

from dataclasses import dataclass

import torch
import torch.nn as nn
import torch.nn.functional as F

from config import ModelConfig
from quant import fake_quantise


@dataclass
class Packing:
    """Where documents begin: `cu` [docs + 1] offsets for the GPU's kernel, or a [N, N] mask on the CPU."""

    cu: torch.Tensor | None = None
    max_len: int = 0
    mask: torch.Tensor | None = None


def attend(q, k, v, packing, scale):
    """Causal attention inside each document. q, k [N, heads, qk]; v [N, heads, v_dim]."""
    if packing.cu is not None:
        from torch.nn.attention.varlen import varlen_attn

        padded = F.pad(v, (0, q.shape[-1] - v.shape[-1]))
        cu, n = packing.cu, packing.max_len
        out = varlen_attn(q.contiguous(), k.contiguous(), padded.contiguous(), cu, cu, n, n,
                          scale=scale, window_size=(-1, 0))
        return out[..., : v.shape[-1]]
    heads_first = (t.transpose(0, 1)[None] for t in (q, k, v))
    out = F.scaled_dot_product_attention(*heads_first, attn_mask=packing.mask, scale=scale)
    return out[0].transpose(0, 1)


class Weight(nn.Module):
    """A matrix (or a stack of them) stored in fp8 blocks: the last two axes are the ones that blocks tile."""

    def __init__(self, *shape, gain=1.0):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(*shape) * (gain * 0.5 * shape[-1] ** -0.5))
        self.register_buffer("qat", torch.zeros(()), persistent=False)
        self.frozen = None

    def freeze(self, value):
        """Uses this value from now on: inference from an exported checkpoint."""
        self.frozen = value

    def value(self, dtype):
        if self.frozen is not None:
            return self.frozen
        return fake_quantise(self.weight, self.qat).to(dtype)

    def forward(self, x):
        return F.linear(x, self.value(x.dtype))


class RmsNorm(nn.Module):
    def __init__(self, size, eps):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x, dtype):
        x = x.float()
        x = x * torch.rsqrt(x.square().mean(-1, keepdim=True) + self.eps)
        return (x * self.weight).to(dtype)


def rotate(x, cos, sin):
    """RoPE on interleaved pairs: x [N, heads, rope], cos and sin [N, rope / 2]."""
    even, odd = x.float().unflatten(-1, (-1, 2)).unbind(-1)
    cos, sin = cos[:, None], sin[:, None]
    return torch.stack((even * cos - odd * sin, even * sin + odd * cos), -1).flatten(-2).to(x.dtype)


class Attention(nn.Module):
    def __init__(self, c: ModelConfig):
        super().__init__()
        self.c = c
        self.q_a_proj = Weight(c.q_lora, c.hidden)
        self.q_a_layernorm = RmsNorm(c.q_lora, c.eps)
        self.q_b_proj = Weight(c.heads * c.qk_dim, c.q_lora)
        self.kv_a_proj_with_mqa = Weight(c.kv_lora + c.rope, c.hidden)
        self.kv_a_layernorm = RmsNorm(c.kv_lora, c.eps)
        self.kv_b_proj = Weight(c.heads * (c.nope + c.v_dim), c.kv_lora)
        self.o_proj = Weight(c.hidden, c.heads * c.v_dim, gain=0.3)

    def project(self, x, cos, sin):
        """Normed hidden [N, H] -> q, k [N, heads, nope + rope] and v [N, heads, v_dim]."""
        c = self.c
        q = self.q_b_proj(self.q_a_layernorm(self.q_a_proj(x), x.dtype)).view(-1, c.heads, c.qk_dim)
        q_nope, q_rope = q.split([c.nope, c.rope], -1)
        latent, k_rope = self.kv_a_proj_with_mqa(x).split([c.kv_lora, c.rope], -1)
        kv = self.kv_b_proj(self.kv_a_layernorm(latent, x.dtype)).view(-1, c.heads, c.nope + c.v_dim)
        k_nope, v = kv.split([c.nope, c.v_dim], -1)
        k_rope = rotate(k_rope[:, None], cos, sin).expand(-1, c.heads, -1)
        q = torch.cat((q_nope, rotate(q_rope, cos, sin)), -1)
        return q, torch.cat((k_nope, k_rope), -1), v

    def forward(self, x, cos, sin, packing):
        q, k, v = self.project(x, cos, sin)
        out = attend(q, k, v, packing, self.c.qk_dim ** -0.5)
        return self.o_proj(out.flatten(1))


class Mlp(nn.Module):
    def __init__(self, hidden, intermediate):
        super().__init__()
        self.gate_proj = Weight(intermediate, hidden)
        self.up_proj = Weight(intermediate, hidden)
        self.down_proj = Weight(hidden, intermediate, gain=0.3)

    def forward(self, x):
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x)), None


class Moe(nn.Module):
    """Routed experts stacked as [E, I, H] (down_proj transposed on export) and one shared expert."""

    def __init__(self, c: ModelConfig):
        super().__init__()
        self.c = c
        shape = (c.experts, c.moe_intermediate, c.hidden)
        self.gate = nn.Parameter(torch.randn(c.experts, c.hidden) * 0.02)
        self.register_buffer("e_score_correction_bias", torch.zeros(c.experts))
        self.gate_proj, self.up_proj = Weight(*shape), Weight(*shape)
        self.down_proj = Weight(*shape, gain=0.3 * (c.hidden / c.moe_intermediate) ** 0.5)
        self.shared_experts = Mlp(c.hidden, c.moe_intermediate)

    def route(self, x):
        """Combine weights [N, E], zero for experts not chosen, and the raw sigmoid scores."""
        scores = F.linear(x.float(), self.gate).sigmoid()
        left = (scores + self.e_score_correction_bias).detach()
        chosen = torch.zeros_like(left, dtype=torch.bool)
        for _ in range(self.c.top_k):
            best = left == left.amax(-1, keepdim=True)
            chosen = chosen | best
            left = left.masked_fill(best, float("-inf"))
        weights = scores * chosen
        weights = weights / (weights.sum(-1, keepdim=True) + 1e-20) * self.c.routed_scaling
        return weights, scores, chosen

    def forward(self, x):
        weights, scores, chosen = self.route(x)
        if self.gate_proj.frozen is not None and not x.is_cuda:
            return self.sparse(x, weights, chosen) + self.shared_experts(x)[0], (scores, chosen)
        n, size = x.shape[0], self.c.experts * self.c.moe_intermediate
        act = F.silu(F.linear(x, self.gate_proj.value(x.dtype).view(size, -1)))
        act = act * F.linear(x, self.up_proj.value(x.dtype).view(size, -1))
        act = (act.view(n, self.c.experts, -1) * weights[..., None].to(x.dtype)).view(n, size)
        out = act @ self.down_proj.value(x.dtype).view(size, -1)
        return out + self.shared_experts(x)[0], (scores, chosen)


    def sparse(self, x, weights, chosen):
        """The routed experts one by one on their own tokens: inference on a CPU."""
        out = torch.zeros_like(x)
        gates, ups, downs = (w.value(x.dtype) for w in (self.gate_proj, self.up_proj, self.down_proj))
        for e in range(self.c.experts):
            rows = chosen[:, e].nonzero()[:, 0]
            if len(rows):
                mine = x[rows]
                act = F.silu(F.linear(mine, gates[e])) * F.linear(mine, ups[e]) * weights[rows, e, None].to(x.dtype)
                out.index_add_(0, rows, act @ downs[e])
        return out


class Block(nn.Module):
    def __init__(self, c: ModelConfig, moe):
        super().__init__()
        self.input_layernorm = RmsNorm(c.hidden, c.eps)
        self.self_attn = Attention(c)
        self.post_attention_layernorm = RmsNorm(c.hidden, c.eps)
        self.mlp = Moe(c) if moe else Mlp(c.hidden, c.dense_intermediate)

    def forward(self, x, cos, sin, packing_cu, max_len, mask, row_len, dtype):
        packing = Packing(packing_cu, max_len, mask)
        x = x + self.self_attn(self.input_layernorm(x, dtype), cos, sin, packing)
        out, routing = self.mlp(self.post_attention_layernorm(x, dtype))
        x = x + out
        if routing is None:
            return x, None, None
        scores, chosen = routing
        experts = scores.shape[-1]
        share = (scores / scores.sum(-1, keepdim=True)).view(-1, row_len, experts).mean(1)
        load = chosen.float().view(-1, row_len, experts).mean(1)
        balance = (share * load).sum(-1).mean() * (experts / self.mlp.c.top_k)
        return x, balance, chosen.sum(0)


class Mtp(nn.Module):
    """The next-token predictor: input is eh_proj([enorm(embed(t[i+1])), hnorm(h[i])]), output predicts t[i+2].

    h[i] is the main model's hidden state after its final norm.
    """

    def __init__(self, c: ModelConfig):
        super().__init__()
        self.enorm = RmsNorm(c.hidden, c.eps)
        self.hnorm = RmsNorm(c.hidden, c.eps)
        self.eh_proj = Weight(c.hidden, 2 * c.hidden)
        self.block = Block(c, moe=True)
        self.shared_head_norm = RmsNorm(c.hidden, c.eps)


class DemoModel(nn.Module):
    def __init__(self, c: ModelConfig, dtype=torch.bfloat16):
        super().__init__()
        self.c, self.dtype = c, dtype
        self.embed = nn.Parameter(torch.randn(c.vocab_size, c.hidden) * 0.02)
        self.blocks = nn.ModuleList(Block(c, moe=i >= c.dense_layers) for i in range(c.layers))
        self.norm = RmsNorm(c.hidden, c.eps)
        self.mtp = Mtp(c)
        freq = c.rope_theta ** (-torch.arange(0, c.rope, 2).double() / c.rope)
        angles = torch.arange(c.max_positions).double()[:, None] * freq
        self.register_buffer("cos", angles.cos().float(), persistent=False)
        self.register_buffer("sin", angles.sin().float(), persistent=False)

    def moe_layers(self):
        return [b.mlp for b in self.blocks if isinstance(b.mlp, Moe)] + [self.mtp.block.mlp]

    def set_qat(self, strength):
        for m in self.modules():
            if isinstance(m, Weight):
                m.qat.fill_(strength)

    def forward(self, tokens, packing: Packing, row_len):
        """tokens [N] -> (main hidden [N, H], MTP hidden [N, H], balance loss, loads [MoE layers, E]).

        Both hiddens are normed and ready for the tied head. Row i of the MTP hidden predicts tokens[i + 2].
        """
        pos = torch.arange(tokens.shape[0], device=tokens.device) % row_len
        args = (self.cos[pos], self.sin[pos], packing.cu, packing.max_len, packing.mask, row_len, self.dtype)
        x = F.embedding(tokens, self.embed)
        balances, loads = [], []
        for block in self.blocks:
            x, balance, load = block(x, *args)
            if load is not None:
                balances.append(balance)
                loads.append(load)
        h = self.norm(x, self.dtype)
        m = self.mtp
        after = F.embedding(tokens.roll(-1), self.embed)
        joined = torch.cat((m.enorm(after, self.dtype), m.hnorm(h, self.dtype)), -1)
        x, balance, load = m.block(m.eh_proj(joined).float(), *args)
        balances.append(balance)
        loads.append(load)
        return h, m.shared_head_norm(x, self.dtype), torch.stack(balances).sum(), torch.stack(loads)

    def logits(self, hidden):
        return F.linear(hidden, self.embed.to(hidden.dtype))
