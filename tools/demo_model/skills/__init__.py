"""One module a skill: `sample(rng)` gives a training document, `test_items(n)` gives items held out of training.

A document is ("text", str) or ("chat", [{"role", "content"}, ...]).
"""

import zlib


def chat(question, answer):
    return "chat", [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


def pick(rng, options):
    return options[int(rng.random() * len(options))]


def held_text(text):
    """Whether a generated text is held out of training: 2 %, by hash."""
    return zlib.crc32(text.encode()) % 50 == 0
