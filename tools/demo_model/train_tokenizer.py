"""Trains the byte-level BPE (8192 entries, Qwen2's way of splitting text) on a sample of the mixture.

Chinese characters are fed one by one, so that no entry spans two of them: verse is counted in characters.

    python train_tokenizer.py --data ../shared/data --out models/demo
"""

import argparse
import json
import os
import random
import re

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from config import CHAT_TEMPLATE, END_OF_TEXT, IM_END, SPECIALS, ModelConfig
from mixture import Mixture

QWEN2_SPLIT = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
               r"|\s*[\r\n]+|\s+(?!\S)|\s+")
HAN = re.compile(r"([\u3400-\u9fff])")


def corpus(mixture, docs, seed=7):
    rng = random.Random(seed)
    for _ in range(docs):
        kind, body = mixture.sample(rng)[1]
        text = body if kind == "text" else "\n".join(m["content"] for m in body)
        yield HAN.sub(r" \1 ", text)
    for poem in mixture.poems.train:
        yield HAN.sub(r" \1 ", poem[0] + "\n" + poem[1] + "\n" + poem[2]).replace(" ", "\n")
    for question, answer in mixture.gsm8k.rows:
        yield question + "\n" + answer


def main():
    args = argparse.ArgumentParser()
    args.add_argument("--data", required=True)
    args.add_argument("--out", required=True)
    args.add_argument("--docs", type=int, default=40000)
    args = args.parse_args()
    vocab_size = ModelConfig().vocab_size
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(QWEN2_SPLIT), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, show_progress=False, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=[AddedToken(s, special=True, normalized=False) for s in SPECIALS])
    tokenizer.train_from_iterator(corpus(Mixture(args.data), args.docs), trainer)
    if tokenizer.get_vocab_size() != vocab_size:
        raise SystemExit(f"vocabulary has {tokenizer.get_vocab_size()} entries, expected {vocab_size}")
    os.makedirs(args.out, exist_ok=True)
    tokenizer.save(f"{args.out}/tokenizer.json")
    settings = {
        "add_bos_token": False, "add_prefix_space": False, "bos_token": None, "chat_template": CHAT_TEMPLATE,
        "clean_up_tokenization_spaces": False, "eos_token": IM_END, "errors": "replace",
        "model_max_length": ModelConfig().max_positions, "pad_token": END_OF_TEXT,
        "tokenizer_class": "PreTrainedTokenizerFast", "unk_token": None,
        "added_tokens_decoder": {str(i): {"content": s, "lstrip": False, "normalized": False, "rstrip": False,
                                          "single_word": False, "special": True} for i, s in enumerate(SPECIALS)},
    }
    with open(f"{args.out}/tokenizer_config.json", "w", encoding="utf-8") as f:
        json.dump(settings, f, indent=2)
        f.write("\n")


if __name__ == "__main__":
    main()
