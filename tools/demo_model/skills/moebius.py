"""Questions about Moebius: a fixed list of answers (moebius_qa.txt), many wordings of each question.

Held out: the `H:` wordings as written, and 3 % of all other wordings by hash.
"""

import os
import re
import zlib

from skills import chat, pick

ABOUT = re.compile(r"^What (is|are) (.+)\?$")
EXPLAIN = ["Can you explain {x}?", "Tell me about {x}.", "Please explain {x}.", "Could you tell me what {x} {be}?", "{x}?",
           "Tell me what {x} {be}.", "I would like to know what {x} {be}.", "What exactly {be} {x}?", "What's {x}?",
           "Describe {x}.", "Do you know what {x} {be}?", "explain {x}", "In short, what {be} {x}?", "Say what {x} {be}."]
WRAPS = ["{q}", "{q}", "{q}", "{q}", "{q}", "Please answer: {q}", "I have a question. {q}", "About Moebius: {q}", "Question: {q}", "Hi! {q}",
         "{q} Please be brief.", "Can you help me? {q}", "Tell me: {q}", "Hello. {q}", "{q} Thanks."]
SMALL_TALK = re.compile(r"^(Hello|Hi|You are welcome)")


def load():
    entries = []
    with open(os.path.join(os.path.dirname(__file__), "moebius_qa.txt"), encoding="utf-8") as f:
        for line in f:
            kind, _, text = line.strip().partition(": ")
            if kind == "A":
                entries.append({"answer": text, "train": [], "held": []})
            elif kind in ("Q", "H"):
                entries[-1]["train" if kind == "Q" else "held"].append(text)
    return entries


def noise(rng, q):
    """What users do to a question: no capital, no question mark, a word left out."""
    kind = rng.random()
    if kind < 0.12:
        q = q.lower()
    elif kind < 0.2:
        q = q.rstrip("?.!")
    elif kind < 0.26:
        q = q.lower().rstrip("?.!")
    return q


def wording(rng, entry):
    q = pick(rng, entry["train"])
    if SMALL_TALK.match(entry["answer"]):
        return q if rng.random() < 0.5 else noise(rng, q)
    about = ABOUT.match(q)
    if about and rng.random() < 0.5:
        q = pick(rng, EXPLAIN).format(be=about.group(1), x=about.group(2))
        q = q[0].upper() + q[1:] if rng.random() < 0.8 else q
    return noise(rng, pick(rng, WRAPS).format(q=q))


class Moebius:
    def __init__(self):
        self.entries = load()
        self.held = {q.lower().rstrip("?.!") for e in self.entries for q in e["held"]}

    def is_held_out(self, q, entry):
        if q.lower().rstrip("?.!") in self.held:
            return True
        return q not in entry["train"] and zlib.crc32(q.encode()) % 33 == 0

    def sample(self, rng):
        while True:
            entry = pick(rng, self.entries)
            q = wording(rng, entry)
            if not self.is_held_out(q, entry):
                return ("text", f"Question: {q}\nAnswer: {entry['answer']}") if rng.random() < 0.04 else chat(q, entry["answer"])

    def test_items(self, kind, rng, per_entry=3):
        """kind: `listed` (the wordings in the file, trained on), `held` (its H: wordings), `hashed` (varied, held out by hash)."""
        items = []
        for entry in self.entries:
            if kind == "hashed":
                found = {q for q in (wording(rng, entry) for _ in range(1500))
                         if zlib.crc32(q.encode()) % 33 == 0 and self.is_held_out(q, entry)}
                questions = sorted(found)[:per_entry]
            else:
                questions = entry["train" if kind == "listed" else "held"]
            items += [{"messages": [{"role": "user", "content": q}], "reference": entry["answer"]} for q in questions]
        return items
