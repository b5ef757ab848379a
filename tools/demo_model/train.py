"""Trains the demo model for a fixed wall-clock time: the schedule is a function of the elapsed share, so it ends on time.

    python train.py --data DATA --tokenizer models/demo/tokenizer.json --out RUN --minutes 16
"""

import argparse
import glob
import json
import os
import shutil
import time

import numpy as np
import torch
import torch.nn.functional as F

import checkpoint
from build_data import ROW, start_workers
from config import ModelConfig
from mixture import DOC_START, LEARN
from model import DemoModel, Packing
from optim import make_optimisers

PROMPT_WEIGHT = 0.1


class Rows:
    """A ring of rows on the device, filled from the workers' shards; hands out rows not seen yet while there are any."""

    CAPACITY = 1 << 19

    def __init__(self, folder, device):
        self.folder, self.device = folder, device
        self.tokens = torch.zeros(self.CAPACITY, ROW, dtype=torch.int16, device=device)
        self.flags = torch.zeros(self.CAPACITY, ROW, dtype=torch.uint8, device=device)
        self.fresh, self.used = np.zeros(0, dtype=np.int64), 0
        self.loaded = self.reused = 0

    def poll(self):
        """Reads waiting shards while at least half of the ring has been used."""
        for name in sorted(glob.glob(f"{self.folder}/shard_*.npz")):
            if self.available() > self.CAPACITY // 2:
                return
            shard = np.load(name)
            index = (self.loaded + np.arange(len(shard["tokens"]))) % self.CAPACITY
            where = torch.from_numpy(index).to(self.device)
            self.tokens[where] = torch.from_numpy(shard["tokens"].astype(np.int16)).to(self.device)
            self.flags[where] = torch.from_numpy(shard["flags"]).to(self.device)
            os.remove(name)
            self.loaded += len(index)
            self.fresh = np.concatenate((self.fresh[self.used:], index))
            self.used = 0
            np.random.shuffle(self.fresh)

    def available(self):
        return len(self.fresh) - self.used

    def batch(self, rows):
        take = self.fresh[self.used:self.used + rows]
        self.used += len(take)
        if len(take) < rows:
            self.reused += rows - len(take)
            take = np.concatenate((take, np.random.randint(min(self.loaded, self.CAPACITY), size=rows - len(take))))
        index = torch.from_numpy(take).to(self.device)
        return self.tokens[index].flatten().long(), self.flags[index].flatten()


def packing_of(flags, max_docs):
    """Offsets of the documents, padded with empty ones to a fixed count."""
    n = flags.shape[0]
    starts = torch.nonzero_static((flags & DOC_START) > 0, size=max_docs, fill_value=n).flatten()
    return Packing(cu=F.pad(starts, (0, 1), value=n).int(), max_len=ROW)


def targets_of(tokens, flags, ahead):
    """Targets `ahead` tokens on, and their weights: none across documents, little for prompts."""
    weight = torch.where((flags.roll(-ahead) & LEARN) > 0, 1.0, PROMPT_WEIGHT)
    for k in range(1, ahead + 1):
        crosses = (flags.roll(-k) & DOC_START) > 0
        weight = weight.masked_fill(crosses, 0.0)
    weight[-ahead:] = 0.0
    return tokens.roll(-ahead), weight


def head_loss(hidden, embed, targets, weights):
    logits = F.linear(hidden, embed.to(hidden.dtype))
    loss = F.cross_entropy(logits.float(), targets, reduction="none")
    return (loss * weights).sum() / weights.sum()


def learning_rate(share, step, warmup=150):
    """Relative rate: short warm-up, flat to a quarter of the time, then linear to 0."""
    return min(1.0, (step + 1) / warmup) * max(0.0, min(1.0, (1 - share) / 0.75))


@torch.no_grad()
def update_bias(model, loads, speed):
    """Auxiliary-loss-free balancing: raise the bias of experts below the mean load, lower it above."""
    loads = loads.float()
    for mlp, load in zip(model.moe_layers(), loads):
        mlp.e_score_correction_bias += speed * torch.sign(load.mean() - load)


def train(args):
    began = time.time()
    torch.manual_seed(args.seed)
    np.random.seed(args.seed)
    torch.set_float32_matmul_precision("high")
    device = "cuda"
    workers = start_workers(args.data, args.tokenizer, args.shards, args.workers, rows=512)
    model = DemoModel(ModelConfig()).to(device)
    if args.resume:
        checkpoint.resume(model, args.resume)
    for block in [*model.blocks, model.mtp.block]:
        block.compile()
    loss_fn = torch.compile(head_loss)
    muon, adam = make_optimisers(model)
    rows = Rows(args.shards, device)
    while rows.available() < 4 * args.rows:
        time.sleep(0.2)
        rows.poll()
    os.makedirs(args.out, exist_ok=True)
    log = open(f"{args.out}/log.jsonl", "a", encoding="utf-8")
    step, tokens_seen, saved, window, qat = 0, 0, began, time.time(), False
    while True:
        share = (time.time() - began) / (60 * args.minutes)
        if share >= 1:
            break
        if not qat and share >= args.qat_from:
            model.set_qat(1.0)
            qat = True
        tokens, flags = rows.batch(args.rows)
        packing = packing_of(flags, args.rows * 64)
        h, m, balance, loads = model(tokens, packing, ROW)
        main = loss_fn(h, model.embed, *targets_of(tokens, flags, 1))
        extra = loss_fn(m, model.embed, *targets_of(tokens, flags, 2))
        (main + args.mtp_weight * extra + 1e-4 * balance).backward()
        rate = learning_rate(share, step)
        for group in adam.param_groups:
            group["lr"] = args.adam_lr * rate
        muon.step(args.muon_lr * rate)
        adam.step()
        model.zero_grad(set_to_none=True)
        update_bias(model, loads, 1e-3 if share < 0.9 else 0.0)
        step += 1
        tokens_seen += tokens.numel()
        if step % 25 == 0:
            torch.cuda.synchronize()
            rows.poll()
        if step % 100 == 0 or step in (1, 10, 50):
            load = loads.float() / loads.float().mean(-1, keepdim=True)
            entry = {"step": step, "share": round(share, 4), "main": round(main.item(), 4), "mtp": round(extra.item(), 4),
                     "tokens": tokens_seen, "seconds": round(time.time() - began, 1), "rows": rows.loaded,
                     "reused": rows.reused, "max_load": round(load.max().item(), 2), "qat": qat}
            log.write(json.dumps(entry) + "\n")
            log.flush()
            print(entry, flush=True)
        if time.time() - saved > args.save_every:
            saved = time.time()
            save(model, args.out)
    save(model, args.out)
    for p in workers:
        p.terminate()
    shutil.rmtree(args.shards, ignore_errors=True)
    with open(f"{args.out}/done.json", "w", encoding="utf-8") as f:
        json.dump({"steps": step, "tokens": tokens_seen, "seconds": time.time() - began, "unique_rows": rows.loaded,
                   "args": vars(args)}, f)


def save(model, out):
    state = {k.replace("_orig_mod.", ""): v for k, v in model.state_dict().items()}
    torch.save({"model": state}, f"{out}/tmp.pt")
    os.replace(f"{out}/tmp.pt", f"{out}/model.pt")


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--data", required=True)
    p.add_argument("--tokenizer", required=True)
    p.add_argument("--out", required=True)
    p.add_argument("--shards", default="/dev/shm/moebius_demo_shards")
    p.add_argument("--minutes", type=float, default=16)
    p.add_argument("--rows", type=int, default=128)
    p.add_argument("--workers", type=int, default=14)
    p.add_argument("--muon-lr", type=float, default=8e-3)
    p.add_argument("--adam-lr", type=float, default=3e-3)
    p.add_argument("--mtp-weight", type=float, default=0.3)
    p.add_argument("--qat-from", type=float, default=0.7)
    p.add_argument("--save-every", type=float, default=180)
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--resume", help="an exported folder to continue from")
    train(p.parse_args())


if __name__ == "__main__":
    main()
