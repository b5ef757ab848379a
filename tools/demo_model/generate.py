"""Batched inference with the training code: cached decoding, and teacher-forced passes that record the routing."""

import torch
import torch.nn.functional as F

from config import ModelConfig


class Cache:
    """Keys and values of every layer for a batch; `length` tokens are valid."""

    def __init__(self, model, batch, size):
        c: ModelConfig = model.c
        device = model.embed.device
        shape = (len(model.blocks), batch, size, c.heads)
        self.k = torch.zeros(*shape, c.qk_dim, device=device, dtype=model.dtype)
        self.v = torch.zeros(*shape, c.v_dim, device=device, dtype=model.dtype)
        self.length = 0


def block_step(block, x, batch, cos, sin, dtype, kv, start):
    """One block over [batch * n] rows; `kv` are its cache's views [batch, size, heads, d]. Returns x and the routing."""
    n = x.shape[0] // batch
    q, k, v = block.self_attn.project(block.input_layernorm(x, dtype), cos, sin)
    q, k, v = (t.view(batch, n, *t.shape[1:]) for t in (q, k, v))
    kv[0][:, start:start + n], kv[1][:, start:start + n] = k, v
    keys, values = kv[0][:, :start + n], kv[1][:, :start + n]
    mask = torch.ones(n, start + n, dtype=torch.bool, device=x.device).tril(start) if n > 1 else None
    out = F.scaled_dot_product_attention(q.transpose(1, 2), keys.transpose(1, 2), values.transpose(1, 2),
                                         attn_mask=mask, scale=block.self_attn.c.qk_dim ** -0.5)
    x = x + block.self_attn.o_proj(out.transpose(1, 2).reshape(batch * n, -1))
    out, routing = block.mlp(block.post_attention_layernorm(x, dtype))
    return x + out, routing


@torch.no_grad()
def advance(model, tokens, cache, routings=None):
    """Feeds tokens [B, n] after the cache's; returns the final-normed hidden states [B, n, H]."""
    batch, n = tokens.shape
    start = cache.length
    pos = torch.arange(start, start + n, device=tokens.device).repeat(batch)
    cos, sin = model.cos[pos], model.sin[pos]
    x = model.embed[tokens.flatten()]
    for i, block in enumerate(model.blocks):
        x, routing = block_step(block, x, batch, cos, sin, model.dtype, (cache.k[i], cache.v[i]), start)
        if routings is not None and routing is not None:
            routings.append(routing[1].view(batch, n, -1))
    cache.length += n
    return model.norm(x, model.dtype).view(batch, n, -1)


def choose(logits, temperature, generator):
    if temperature == 0:
        return logits.argmax(-1)
    return torch.multinomial((logits.float() / temperature).softmax(-1), 1, generator=generator)[:, 0]


@torch.no_grad()
def continue_batch(model, prompts, max_tokens, stop_ids, temperature=0.0, seed=0):
    """Continues each prompt (a list of ids); returns the new ids, the stop token left out, and whether one came."""
    device = model.embed.device
    generator = torch.Generator(device).manual_seed(seed)
    lengths = torch.tensor([len(p) for p in prompts], device=device)
    shortest, longest = int(lengths.min()), int(lengths.max())
    total = min(longest + max_tokens, model.c.max_positions)
    ids = torch.zeros(len(prompts), total, dtype=torch.long, device=device)
    for i, p in enumerate(prompts):
        ids[i, :len(p)] = torch.tensor(p, device=device)
    stops = torch.tensor(stop_ids, device=device)
    cache = Cache(model, len(prompts), total)
    out, alive = [None] * len(prompts), torch.arange(len(prompts), device=device)
    hidden = advance(model, ids[:, :shortest], cache)[:, -1]
    for pos in range(shortest, total):
        fresh = pos >= lengths
        token = torch.where(fresh, choose(model.logits(hidden), temperature, generator), ids[:, pos])
        ids[:, pos] = token
        stopped = fresh & torch.isin(token, stops)
        over = stopped | (pos + 1 >= torch.clamp(lengths + max_tokens, max=total))
        for i in over.nonzero()[:, 0].tolist():
            if out[alive[i]] is None:
                last = pos if bool(stopped[i]) else pos + 1
                out[alive[i]] = (ids[i, int(lengths[i]):last].tolist(), bool(stopped[i]))
        left = torch.tensor([i for i, a in enumerate(alive.tolist()) if out[a] is None], device=device, dtype=torch.long)
        if len(left) == 0:
            break
        if len(left) <= 0.6 * len(alive):
            ids, lengths, alive, token = ids[left], lengths[left], alive[left], token[left]
            cache.k, cache.v = cache.k[:, left], cache.v[:, left]
        hidden = advance(model, token[:, None], cache)[:, -1]
    return out


def generate(model, prompts, max_tokens, stop_ids, temperature=0.0, seed=0, batch=128):
    """As continue_batch, for any number of prompts, batched by similar length; results in the prompts' order."""
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    results = [None] * len(prompts)
    for at in range(0, len(order), batch):
        some = order[at:at + batch]
        answers = continue_batch(model, [prompts[i] for i in some], max_tokens, stop_ids, temperature, seed + at)
        for i, answer in zip(some, answers):
            results[i] = answer
    return results


@torch.no_grad()
def read_through(model, tokens):
    """Teacher-forced pass over [B, n]: main logits, MTP logits (row i predicts i + 2), routing [layers, B, n, E]."""
    batch, n = tokens.shape
    routings = []
    hidden = advance(model, tokens, Cache(model, batch, n), routings)
    m, c = model.mtp, model.c
    pos = torch.arange(n, device=tokens.device).repeat(batch)
    after = model.embed[tokens.roll(-1, 1).flatten()]
    joined = torch.cat((m.enorm(after, model.dtype), m.hnorm(hidden.view(batch * n, -1), model.dtype)), -1)
    kv = [torch.zeros(batch, n, c.heads, d, device=tokens.device, dtype=model.dtype) for d in (c.qk_dim, c.v_dim)]
    x, routing = block_step(m.block, m.eh_proj(joined).float(), batch, model.cos[pos], model.sin[pos], model.dtype, kv, 0)
    routings.append(routing[1].view(batch, n, -1))
    mtp = m.shared_head_norm(x, model.dtype).view(batch, n, -1)
    return model.logits(hidden), model.logits(mtp), torch.stack(routings)
