"""Figures that need the model's inside: held-out loss, acceptance of MTP drafts, how skills load the experts."""

import torch
import torch.nn.functional as F

from generate import read_through

BATCH = 16


def _padded(sequences, device):
    width = max(len(s) for s in sequences)
    out = torch.zeros(len(sequences), width, dtype=torch.long, device=device)
    for i, s in enumerate(sequences):
        out[i, :len(s)] = torch.tensor(s, device=device)
    return out


def _answer_rows(spans, width, device, ahead):
    """Mask [B, width] of the rows that predict a token of the answer `ahead` tokens on."""
    pos = torch.arange(width, device=device)[None] + ahead
    begin = torch.tensor([b for b, _ in spans], device=device)[:, None]
    end = torch.tensor([e for _, e in spans], device=device)[:, None]
    return (pos >= begin) & (pos < end)


def _batches(sequences, limit):
    """Pairs (ids, (answer begin, answer end)), sorted by length, cut into batches."""
    some = sorted(sequences[:limit], key=lambda s: len(s[0]))
    return [some[i:i + BATCH] for i in range(0, len(some), BATCH)]


def held_out_loss(backend, sets, limit):
    """Mean nats a token of the reference answers (end token included), by skill."""
    device, result = backend.model.embed.device, {}
    for skill, items in sets.items():
        sequences = []
        for item in items:
            prompt = backend.prompt_ids(item)
            answer = backend.tokenizer.encode(item["reference"], add_special_tokens=False).ids + [2]
            sequences.append((prompt + answer, (len(prompt), len(prompt) + len(answer))))
        total, count = 0.0, 0
        for batch in _batches(sequences, limit):
            ids = _padded([s for s, _ in batch], device)
            logits, _, _ = read_through(backend.model, ids)
            rows = _answer_rows([span for _, span in batch], ids.shape[1], device, 1)
            loss = F.cross_entropy(logits[rows].float(), ids.roll(-1, 1)[rows], reduction="sum")
            total, count = total + loss.item(), count + int(rows.sum())
        result[skill] = round(total / count, 4)
    return result


def mtp_acceptance(backend, read, limit):
    """On the model's own answers: how often the MTP layer's greedy draft is the main model's greedy choice.

    Returns the rate by skill, and the routing counts [layers, experts] by skill over prompts and answers.
    """
    device, rates, counts = backend.model.embed.device, {}, {}
    for skill, (items, answers) in read.items():
        sequences = []
        for item, (_, ids, _) in zip(items, answers):
            prompt = backend.prompt_ids(item)
            sequences.append((prompt + ids, (len(prompt), len(prompt) + len(ids))))
        same, drafts, load = 0, 0, 0
        for batch in _batches(sequences, limit):
            ids = _padded([s for s, _ in batch], device)
            main, mtp, routing = read_through(backend.model, ids)
            rows = _answer_rows([span for _, span in batch], ids.shape[1], device, 1)
            rows[:, -1] = False
            target = main.argmax(-1).roll(-1, 1)
            same += int((mtp.argmax(-1) == target)[rows].sum())
            drafts += int(rows.sum())
            real = torch.arange(ids.shape[1], device=device)[None] < torch.tensor([[len(s)] for s, _ in batch], device=device)
            load = load + (routing & real[None, :, :, None]).sum((1, 2)).cpu()
        rates[skill] = round(same / max(1, drafts), 4)
        counts[skill] = load
    return rates, counts


def histogram_report(counts):
    """Total-variation distances between skills, each skill's imbalance and top experts; and the full histogram.

    Layers are the MoE layers in order, the MTP layer last; distances are means over the layers without it.
    """
    shares = {s: c.double() / c.sum(-1, keepdim=True) for s, c in counts.items()}
    skills = list(shares)
    distance = {a: {b: round(float((shares[a][:-1] - shares[b][:-1]).abs().sum(-1).mean() / 2), 3) for b in skills} for a in skills}
    busiest = {s: [round(float(x), 2) for x in shares[s].amax(-1) * shares[s].shape[-1]] for s in skills}
    top = {s: [[int(e) for e in layer.topk(4).indices] for layer in shares[s]] for s in skills}
    histogram = {"layers": "MoE layers in order, the MTP layer last", "tokens_times_top_k":
                 {s: int(c[0].sum()) for s, c in counts.items()}, "counts": {s: c.tolist() for s, c in counts.items()}}
    return {"total_variation": distance, "max_over_mean_by_layer": busiest, "top4_by_layer": top}, histogram
