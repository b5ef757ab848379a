"""Tang poems (MIT licence), regular verse only: every line of a poem has the same length, five or seven.

Held out: 2 % of the poems, by hash of their text.
"""

import re
import zlib

from skills import chat, pick

SUBJECTS = {"moon": "月", "mountain": "山", "wind": "風", "river": "江", "flower": "花", "snow": "雪", "rain": "雨",
            "autumn": "秋", "spring": "春", "night": "夜", "wine": "酒", "bird": "鳥", "cloud": "雲", "willow": "柳",
            "boat": "舟", "farewell": "送", "friend": "友", "temple": "寺", "horse": "馬", "bamboo": "竹", "dream": "夢"}
FORMS = {5: ["five-character", "five-syllable"], 7: ["seven-character", "seven-syllable"]}
CHINESE_FORM = {5: "五言", 7: "七言"}


def clauses(text):
    return [c for c in re.split(r"[，。？！；：、\n]+", text) if c]


def regular(body):
    """5 or 7 when every clause of the poem has that many characters, else None."""
    parts = clauses(body)
    sizes = {len(p) for p in parts}
    if len(sizes) == 1 and len(parts) % 2 == 0 and 4 <= len(parts) <= 16:
        size = sizes.pop()
        if size in (5, 7) and all("\u4e00" <= ch <= "\u9fff" and ch != "囗" for p in parts for ch in p):
            return size
    return None


def load(folder):
    """(title, author, body, size) of the regular poems, and the held-out ones."""
    train, test = [], []
    with open(f"{folder}/tang_poems/tang.txt", encoding="utf-8") as f:
        for block in f.read().split("\n\n"):
            lines = block.strip().split("\n")
            if len(lines) < 3:
                continue
            title, author, body = lines[0].strip(), lines[1].strip(), "\n".join(s.strip() for s in lines[2:])
            size = regular(body)
            if size and len(title) <= 14 and len(author) <= 5:
                (test if zlib.crc32(body.encode()) % 50 == 0 else train).append((title, author, body, size))
    return train, test


def question(rng, poem):
    title, author, body, size = poem
    options = [f"寫一首詩，題目是《{title}》。", f"請寫一首{CHINESE_FORM[size]}詩。", f"寫一首{author}風格的詩。",
               f"Write a {pick(rng, FORMS[size])} Chinese poem.", "Write a Chinese poem.", "Write a poem in Chinese.",
               f"Write a Chinese poem with the title {title}.", f"Write a Chinese poem in the style of {author}.",
               f"請以《{title}》為題，寫一首{CHINESE_FORM[size]}詩。", "請寫一首詩。"]
    subjects = [s for s, ch in SUBJECTS.items() if ch in title or ch in body[:24]]
    if subjects and rng.random() < 0.5:
        s = pick(rng, subjects)
        options = [f"Write a Chinese poem about the {s}.", f"Write a {pick(rng, FORMS[size])} Chinese poem about the {s}.",
                   f"Please write a poem in Chinese about the {s}.", f"寫一首關於{SUBJECTS[s]}的詩。",
                   f"請寫一首關於{SUBJECTS[s]}的{CHINESE_FORM[size]}詩。", f"Write a Tang poem about the {s}."]
    return pick(rng, options)


class Poems:
    def __init__(self, folder):
        self.train, self.test = load(folder)

    def sample(self, rng):
        poem = pick(rng, self.train)
        if rng.random() < 0.35:
            return "text", f"{poem[0]}\n{poem[1]}\n{poem[2]}"
        return chat(question(rng, poem), poem[2])

    def test_items(self, n, rng):
        """Prompts made from held-out poems, with the poem itself as the reference."""
        return [{"messages": [{"role": "user", "content": question(rng, p)}], "reference": p[2]}
                for p in rng.sample(self.test, min(n, len(self.test)))]
