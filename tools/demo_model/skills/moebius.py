"""Questions about Moebius: a fixed list of answers (moebius_qa.txt), many wordings of each question.

Held out: the `H:` wordings as written, and 3 % of all other wordings by hash.
"""

import os
import re
import zlib

from skills import chat, pick

# A question's frame, and frames that ask the same; groups keep the case of what they hold.
REFRAME = [(re.compile(pattern), frames) for pattern, frames in [
    (r"^What (is|are) ((?:the |a |an )?[\w./-]+(?: [\w./-]+){0,3})\?$",
     ["Can you explain {1}?", "Tell me about {1}.", "Please explain {1}.", "Could you tell me what {1} {0}?", "{1}?",
      "Tell me what {1} {0}.", "I would like to know what {1} {0}.", "What exactly {0} {1}?", "What's {1}?",
      "Describe {1}.", "Do you know what {1} {0}?", "Explain {1}.", "In short, what {0} {1}?", "Say what {1} {0}.",
      "Give me a definition of {1}.", "What do you mean by {1}?", "Explain to me what {1} {0}."]),
    (r"^What does (.+) do\?$",
     ["What is {0} for?", "What is {0} good for?", "Explain what {0} does.", "What is the job of {0}?", "Why is there {0}?",
      "What is the purpose of {0}?", "Tell me what {0} does.", "Describe what {0} does.", "What is the use of {0}?"]),
    (r"^How does (.+) work\?$",
     ["Explain how {0} works.", "In what way does {0} work?", "Tell me how {0} works.", "Describe how {0} works.",
      "How exactly does {0} work?", "What is the idea behind {0}?"]),
    (r"^How (?:do|can) I (.+)\?$",
     ["How can I {0}?", "How do I {0}?", "How to {0}?", "I want to {0}.", "What do I have to do to {0}?",
      "What must I do to {0}?", "What is the way to {0}?", "What command do I need to {0}?", "Show me how to {0}."]),
    (r"^Why (does|do|is|are|must|can) (.+)\?$",
     ["For which reason {0} {1}?", "Can you say why {0} {1}?", "Tell me: why {0} {1}?", "What is the reason: why {0} {1}?"]),
    (r"^Which (.+)\?$", ["What {0}?", "Tell me which {0}.", "Do you know which {0}?"]),
    (r"^How (is|are) (.+)\?$", ["In what way {0} {1}?", "Tell me how {1} {0}.", "Explain how {1} {0}."]),
    (r"^(?:Define|Describe) (.+)\.$", ["Give a definition of {0}.", "Please define {0}.", "Can you describe {0}?", "Explain {0}.",
                                    "Tell me about {0}.", "What can you tell me about {0}?"]),
]]
SMALL_WORDS = {"the", "a", "an", "of", "in", "is", "are", "does", "do", "for", "to", "me", "it", "and", "on", "with"}
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
    """What users do to a question: no capital, no question mark, small words left out."""
    kind = rng.random()
    if kind < 0.12:
        q = q.lower()
    elif kind < 0.2:
        q = q.rstrip("?.!")
    elif kind < 0.26:
        q = q.lower().rstrip("?.!")
    elif kind < 0.32:
        q = " ".join(w for w in q.split() if w.lower() not in SMALL_WORDS or rng.random() < 0.5)
    return q


def reframe(rng, q):
    """The question in another frame, where its own is known."""
    for pattern, frames in REFRAME:
        match = pattern.match(q)
        if match:
            q = pick(rng, frames).format(*match.groups())
            return q[0].upper() + q[1:] if rng.random() < 0.8 else q
    return q


def wording(rng, entry):
    q = pick(rng, entry["train"])
    if SMALL_TALK.match(entry["answer"]):
        return q if rng.random() < 0.5 else noise(rng, q)
    if rng.random() < 0.5:
        q = reframe(rng, q)
    if rng.random() < 0.1:
        q = q.replace("Moebius", pick(rng, ["the engine", "this engine", "moebius", "it"]))
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
