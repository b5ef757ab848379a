"""Worker processes that write shards of packed rows until told to stop: shard_K.npz with tokens uint16 and flags uint8.

A row is whole documents, best fit first, padded with <|endoftext|> (flagged as documents of their own, not learnt).
Shard K is a function of its seed K alone.
"""

import multiprocessing
import os
import random
import time

import numpy as np
from tokenizers import Tokenizer

from mixture import DOC_START, Mixture, encode

ROW = 1024
OPEN_ROWS = 24
MAX_WAITING = 256  # shards; the trainer removes what it has read


class Packer:
    def __init__(self):
        self.open = [([], []) for _ in range(OPEN_ROWS)]
        self.done = []

    def add(self, tokens, flags):
        if len(tokens) > ROW:
            return
        fits = [r for r in self.open if len(r[0]) + len(tokens) <= ROW]
        if not fits:
            fullest = max(self.open, key=lambda r: len(r[0]))
            self.close(fullest)
            fullest = ([], [])
            self.open.append(fullest)
            fits = [fullest]
        row = max(fits, key=lambda r: len(r[0]))
        row[0].extend(tokens)
        row[1].extend(flags)

    def close(self, row):
        self.open = [r for r in self.open if r is not row]
        pad = ROW - len(row[0])
        self.done.append((row[0] + [0] * pad, row[1] + ([DOC_START] + [0] * (pad - 1) if pad else [])))


def make_shard(mixture, tokenizer, seed, rows):
    rng = random.Random(f"shard {seed}")
    packer = Packer()
    while len(packer.done) < rows:
        for tokens, flags in encode(tokenizer, [mixture.sample(rng)[1] for _ in range(400)]):
            packer.add(tokens, flags)
    tokens = np.array([r[0] for r in packer.done[:rows]], dtype=np.uint16)
    flags = np.array([r[1] for r in packer.done[:rows]], dtype=np.uint8)
    return tokens, flags


def work(data, tokenizer_path, out, rows, first, step, count):
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    os.nice(10)
    mixture, tokenizer = Mixture(data), Tokenizer.from_file(tokenizer_path)
    for seed in range(first, count, step):
        while len(os.listdir(out)) > MAX_WAITING:
            time.sleep(0.2)
        tokens, flags = make_shard(mixture, tokenizer, seed, rows)
        np.savez(f"{out}/tmp_{seed}.npz", tokens=tokens, flags=flags)
        os.rename(f"{out}/tmp_{seed}.npz", f"{out}/shard_{seed}.npz")


def start_workers(data, tokenizer_path, out, workers, rows=1024, count=10**6):
    """Starts daemons; they end with the caller, or after `count` shards in all."""
    os.makedirs(out, exist_ok=True)
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=work, args=(data, tokenizer_path, out, rows, i, workers, count), daemon=True)
                 for i in range(workers)]
    for p in processes:
        p.start()
    return processes
