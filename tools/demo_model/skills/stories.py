"""Short stories of our own: a plot, its beats in order, one wording each, the same names and things throughout.

A story whose words repeat a 4-gram is drawn again, so that training text has none.
"""

import random
import re

from skills import chat, held_text, pick
from skills import story_text as T

PROMPTS = [
    "Tell me a story.", "Write a short story.", "Tell me a short story about a {k}.", "Write a story about a {k} named {n}.",
    "Write a short story about a {k} called {n}.", "Can you tell me a story about {n} the {k}?", "Story about a {k}, please.",
    "Write a story about a {k} and a {o}.", "Tell me a story with a {o} in it.", "Please write a short story for children.",
    "Write a bedtime story about a {k}.", "Tell a story about {n} and a {o}.", "I would like a story about a {k} in {s}.",
    "Write a story in which a {k} meets a {h}.", "Make up a story about a {k} named {n} and a {h}.",
]


def repeated_4grams(text):
    """Share of a text's word 4-grams that occurred before in it."""
    words = re.findall(r"\w+", text.lower())
    grams = [tuple(words[i:i + 4]) for i in range(len(words) - 3)]
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


def fill(template, slots):
    """The template with its slots filled, and `a` made `an` where a vowel follows."""
    return re.sub(r"\b([Aa]) (?=[aeiou])", r"\1n ", template.format(**slots))


def draft(rng):
    he = pick(rng, ("he", "she"))
    forms = {"he": ("he", "his", "him"), "she": ("she", "her", "her")}[he]
    k = pick(rng, list(T.KINDS))
    if k in ("girl", "boy"):
        he, forms = ("she", ("she", "her", "her")) if k == "girl" else ("he", ("he", "his", "him"))
    spot, spot2 = rng.sample(T.SPOTS, 2)
    obj = pick(rng, T.OBJECTS)
    slots = {
        "kind": T.KINDS[k], "n": pick(rng, T.NAMES[he]), "he": forms[0], "his": forms[1], "him": forms[2],
        "He": forms[0].capitalize(), "His": forms[1].capitalize(), "place": pick(rng, T.PLACES), "obj": obj,
        "obj2": pick(rng, ["fiddle", "drum", "accordion", "trumpet"]), "food": pick(rng, T.FOODS), "helper": pick(rng, T.HELPERS),
        "weather": pick(rng, T.WEATHER), "season": pick(rng, T.SEASONS), "spot": spot, "spot2": spot2,
        "moral": pick(rng, T.MORALS), "feeling": pick(rng, T.FEELINGS),
    }
    beats = pick(rng, list(T.PLOTS.values()))
    parts = [pick(rng, T.OPENINGS), pick(rng, T.DETAILS)] + [pick(rng, b) for b in beats] + [pick(rng, T.ENDINGS)]
    sentences = [fill(p, slots) for p in parts]
    cut = 2 + len(beats) // 2
    text = " ".join(sentences[:2]) + "\n\n" + " ".join(sentences[2:cut]) + "\n\n" + " ".join(sentences[cut:])
    return text, k, slots, "\n".join(parts)


def story(rng, held=False):
    """A story (from the held-out ones or from the others), and a prompt that asks for what is in it."""
    while True:
        text, k, slots, used = draft(rng)
        if repeated_4grams(text) > 0 or held_text(text) != held:
            continue
        while True:
            p = pick(rng, PROMPTS)
            if ("{o}" in p and "{obj}" not in used) or ("{h}" in p and "{helper}" not in used):
                continue
            if "{s}" in p and "{season}" not in used:
                continue
            break
        return text, fill(p, {"k": k, "n": slots["n"], "o": slots["obj"], "s": slots["season"], "h": slots["helper"]})


def sample(rng):
    text, prompt = story(rng)
    return ("text", text) if rng.random() < 0.15 else chat(prompt, text)


def test_items(n, seed=3):
    rng = random.Random(f"test {seed}")
    items = []
    for _ in range(n):
        text, prompt = story(rng, held=True)
        items.append({"messages": [{"role": "user", "content": prompt}], "reference": text})
    return items
