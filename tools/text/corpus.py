"""Texts for comparing tokenizers: records of bytes of many kinds, the same for the same seed.

Real text and code come from files of the machine (documentation, Python and C sources, and folders
named by the caller); Chinese, other scripts, emoji, digits, white space and malformed bytes are
generated.
"""

import os
import random
import unicodedata
from pathlib import Path

SYSTEM_FOLDERS = ["/usr/share/doc", "/usr/share/perl", "/usr/include", "/usr/share/i18n/locales"]
SCRIPTS = [
    (0x20, 0x7E), (0xA1, 0x24F), (0x300, 0x36F), (0x370, 0x3FF), (0x400, 0x52F), (0x531, 0x58F),
    (0x591, 0x5F4), (0x600, 0x6FF), (0x900, 0x97F), (0xE01, 0xE5B), (0x1100, 0x11FF),
    (0x1E00, 0x1FFF), (0x2000, 0x206F), (0x2070, 0x218B), (0x2190, 0x23FF), (0x2460, 0x24FF),
    (0x2581, 0x2581), (0x3000, 0x30FF), (0x3400, 0x34FF), (0x4E00, 0x9FFF), (0xAC00, 0xD7A3),
    (0xF900, 0xFAFF), (0xFB00, 0xFB4F), (0xFE00, 0xFE0F), (0xFF01, 0xFFEE), (0x10400, 0x1044F),
    (0x1D400, 0x1D7FF), (0x1F300, 0x1F64F), (0x1F680, 0x1F6FF), (0x1F900, 0x1F9FF),
    (0x20000, 0x2A6DF),
]
SPACES = [" ", " ", " ", "  ", "   ", "\n", "\n\n", "\r\n", "\t", " \n", "\n ", "\u00a0", "\u3000",
          "\u2003", "\u180e", "\u200b", "\u200d", "\ufeff", "\x0b", "\x0c", "\x1c", "\x85", "\u2028"]
EMOJI = ["\U0001F600", "\U0001F468\u200d\U0001F469\u200d\U0001F467", "\U0001F44D\U0001F3FD",
         "\U0001F1E8\U0001F1F3", "\u2764\ufe0f", "1\ufe0f\u20e3", "\u2603", "\u00a9\ufe0f"]
FRAGMENTS = ["'s", "'S", "'ll", "'LL", "'\u017f", "\u2019s", "don't", "I'm", "123", "1234567", "3.14",
             "\u0661\u0662", "\u00bd", "\u2167", "x\u0301", "e\u0301\u0323", "\u0344", "\u1e9b\u0323",
             "\uac00\u11a8", "\u1100\u1161", "\ufb01", "\u0130", "\u01c5", "\u03c2", "_", "__init__",
             "<0x0A>", "<0xE4>", "\u2581", "\u2581\u2581", " \u2581", "\u0120", "\u010a", "\x00",
             "\U0001fae8", " \U0001fae9", "\U0001fae8hi", "\U00031350", "\U0002ebf0x", "\u1c8a\ua7cd",
             "\U00010d40", "\x7f", "\ufffd", "\ufdfa", "\U0010ffff", "//", "/*", "*/", "\\n", "{}", "==", "!!!"]


def _assigned(rng, low, high):
    while True:
        c = chr(rng.randint(low, high))
        if unicodedata.category(c) not in ("Cn", "Cs"):
            return c


def chinese(rng, size):
    """Ideographs of the common range, with the punctuation of Chinese text."""
    out = []
    for _ in range(size):
        out.append(chr(0x4E00 + int(rng.random() ** 2 * 0x51FF)))
        if rng.random() < 0.1:
            out.append(rng.choice("，。！？：；「」、《》（）\n"))
    return "".join(out)


def scripts(rng, size):
    """Words of random scripts between random white space."""
    out = []
    while sum(map(len, out)) < size:
        low, high = rng.choice(SCRIPTS)
        out.extend(_assigned(rng, low, high) for _ in range(rng.randint(1, 9)))
        out.append(rng.choice(SPACES))
    return "".join(out)


def fragments(rng, size, extra=()):
    """Contractions, digits, combining marks, emoji, white space and `extra`, all adjacent."""
    pools = [FRAGMENTS, SPACES, EMOJI] + ([list(extra)] * 2 if extra else [])
    out = []
    while sum(map(len, out)) < size:
        out.append(rng.choice(rng.choice(pools)))
        if rng.random() < 0.2:
            out.append(rng.choice(SPACES) * rng.randint(1, 30))
        if rng.random() < 0.2:
            out.append("".join(rng.choices("abcXYZ \n'0", k=rng.randint(1, 12))))
    return "".join(out)


def damage(rng, data):
    """`data` with bytes changed, dropped, inserted and cut off."""
    data = bytearray(data)
    for _ in range(max(1, len(data) // 60)):
        at = rng.randrange(len(data)) if data else 0
        kind = rng.random()
        if kind < 0.4 and data:
            data[at] = rng.randrange(256)
        elif kind < 0.7 and data:
            del data[at]
        else:
            data[at:at] = bytes(rng.randrange(0x80, 256) for _ in range(rng.randint(1, 4)))
    return bytes(data)


def _files(folders):
    for folder in folders:
        for root, dirs, names in os.walk(folder):
            dirs.sort()
            for name in sorted(names):
                path = Path(root, name)
                if path.suffix in (".gz", ".mo", ".pyc", ".so", ".png") or not path.is_file():
                    continue
                yield path


def real_text(rng, num_bytes, folders):
    """Parts of files: about `num_bytes` in all, every folder with an equal share."""
    records = []
    for folder in folders:
        paths = list(_files([folder]))
        rng.shuffle(paths)
        left = num_bytes // len(folders)
        for path in paths:
            if left <= 0:
                break
            try:
                data = path.read_bytes()[: 200_000]
            except OSError:
                continue
            if b"\x00" in data[:1000]:
                continue
            while data and left > 0:
                size = rng.choice([40, 300, 2000, 20_000])
                records.append(data[:size])
                left -= len(records[-1])
                data = data[size:]
    return records


def build(num_bytes, folders=(), extra=(), seed=1):
    """About `num_bytes` of records; half real text (also of `folders`), the rest generated. `extra`:
    strings to weave in, such as a tokenizer's added tokens."""
    rng = random.Random(seed)
    system = [f for f in SYSTEM_FOLDERS if os.path.isdir(f)] + [os.path.dirname(os.__file__)]
    folders = system + list(folders)
    records = [b"", b" ", b"\n", b"a", b"\x00", b"\xff", b"\xe4\xbd", " \u2581".encode()]
    records += [s.encode() for s in FRAGMENTS + SPACES + EMOJI + list(extra)]
    records += real_text(rng, num_bytes // 2, folders)
    kinds = [
        lambda n: chinese(rng, n // 3).encode(),
        lambda n: scripts(rng, n // 3).encode(),
        lambda n: fragments(rng, n // 2, extra).encode(),
        lambda n: damage(rng, chinese(rng, n // 3).encode()),
        lambda n: damage(rng, fragments(rng, n // 2, extra).encode()),
        lambda n: rng.randbytes(n),
        lambda n: damage(rng, rng.choice(records)),
    ]
    total = sum(map(len, records))
    while total < num_bytes:
        records.append(rng.choice(kinds)(rng.choice([5, 20, 100, 1000, 8000])))
        total += len(records[-1])
    return records
