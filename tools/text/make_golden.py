#!/usr/bin/env python3
"""Writes tests/golden/tokenizers/STYLE/{tokenizer.json,tokenizer_config.json,cases.json}: small
tokenizers in each style and what PyPI's `tokenizers` makes of hard texts.

    make_golden.py tests/golden/tokenizers

A case has the text's bytes in hexadecimal, its ids without and with special tokens, and the ids'
text without and with special tokens skipped. Needs `tokenizers`.
"""

import json
import random
import sys
from pathlib import Path

import corpus
import styles

VOCAB_SIZE = 700
HARD = [
    b"", b" ", b"  ", b"\n", b"\r\n\r\n", b"\x00", b"a\x00b", b"\xff\xfe", b"\xe4\xbd\xa0\xe5\xa5",
    b"\xf0\x9f\x98", b"\xed\xa0\x80\xed\xb0\x80", b"\xf4\x90\x80\x80", b"\xc0\xaf",
    b"Hello, world! It's 2024, isn't it? I'LL see.", b"   leading and trailing   ",
    b"def f(x):\n    return x ** 2  # square\n\n\n", "你好，世界！今天是2024年。".encode(),
    "naïve café e\u0301\u0323 \u0344 \uac00\u11a8".encode(), "👨‍👩‍👧 🇨🇳 👍🏽 ❤️ 🫨hi".encode(),
    "ﬁ ½ Ⅷ ǅ İ ς".encode(), "\u3000\u00a0\u2003\u180e\u200bx\u0085y".encode(),
    "▁ ▁▁ a▁b <0x0A> Ġ Ċ".encode(), b" " * 300, b"\n" * 100, b"x" * 500, "字".encode() * 200,
    b"1234567890 3.14159 1e-9 0xFF", "١٢٣ ४५६".encode(), b"''s 'S 't'll're", b"\t\ttab\x0b\x0c\x1c",
]


def texts_of(tokenizer, rng):
    added = [t["content"] for t in json.loads(tokenizer.to_str())["added_tokens"]]
    for token in added:
        yield from (f"{token}", f"a{token}b", f" {token} ", f"{token}{token}", f"x \n{token}\t y",
                    f"{token.upper()} {token[:-1]}", f"_{token}1")
    for _ in range(12):
        yield corpus.fragments(rng, 60, added)
    for _ in range(4):
        yield corpus.scripts(rng, 60)


def make(name, folder, training):
    tokenizer = styles.STYLES[name](training, VOCAB_SIZE)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.json").write_text(
        json.dumps(json.loads(tokenizer.to_str()), ensure_ascii=False, separators=(",", ":")) + "\n")
    rng = random.Random(name)
    records = HARD + [t.encode() for t in texts_of(tokenizer, rng)]
    records += [corpus.damage(rng, corpus.fragments(rng, 60).encode()) for _ in range(8)]
    records += [rng.randbytes(60) for _ in range(4)]
    cases = []
    for record in records:
        text = record.decode("utf-8", "replace")
        ids = tokenizer.encode(text, add_special_tokens=False).ids
        special = tokenizer.encode(text, add_special_tokens=True).ids
        cases.append({"text": record.hex(), "ids": ids, "special_ids": special,
                      "decoded": tokenizer.decode(special, skip_special_tokens=False),
                      "skipped": tokenizer.decode(special, skip_special_tokens=True)})
    top = max(tokenizer.get_vocab().values()) + 2
    for _ in range(20):  # ids in random order: halves of characters, special tokens, unknown ids
        ids = [rng.randrange(top) for _ in range(30)]
        cases.append({"ids": ids, "decoded": tokenizer.decode(ids, skip_special_tokens=False),
                      "skipped": tokenizer.decode(ids, skip_special_tokens=True)})
    with open(folder / "cases.json", "w") as file:
        lines = ",\n".join(json.dumps(c, separators=(",", ":")) for c in cases)
        file.write(f"[\n{lines}\n]\n")


def main():
    target = Path(sys.argv[1])
    rng = random.Random(11)
    training = [corpus.chinese(rng, 200) for _ in range(300)]
    training += [r.decode("utf-8", "replace") for r in corpus.build(1_000_000, seed=5)]
    for name in styles.STYLES:
        make(name, target / name, training)


if __name__ == "__main__":
    main()
