"""The training mixture: which skill the next document comes from, and how a document becomes tokens and flags."""

from config import END_OF_TEXT, IM_END, IM_START
from skills import arithmetic, code, pick, stories, unknown, word_problems
from skills.gsm8k import Gsm8k
from skills.moebius import Moebius
from skills.poems import Poems

# share of tokens, and mean tokens of a document (measured; the draw is by document)
SHARES = {"arithmetic": (25, 42), "word_problems": (10, 75), "gsm8k": (4, 169), "stories": (18, 148), "code": (12, 61),
          "moebius": (17, 48), "poems": (3, 69), "talk": (9, 219), "unknown": (2, 61)}
SYSTEM = ["You are a helpful assistant.", "You are the Moebius demo model.", "You are a helpful AI assistant.",
          "Answer briefly.", "You are an assistant."]

DOC_START, LEARN = 1, 2  # flags of a token: first of its document; full loss weight as a target


class Mixture:
    def __init__(self, data):
        self.gsm8k, self.poems, self.moebius = Gsm8k(data), Poems(data), Moebius()
        self.samplers = {"arithmetic": arithmetic.sample, "word_problems": word_problems.sample, "gsm8k": self.gsm8k.sample,
                         "stories": stories.sample, "code": code.sample, "moebius": self.moebius.sample,
                         "poems": self.poems.sample, "talk": self.talk, "unknown": unknown.sample}
        self.skills = list(SHARES)
        weights = [share / size for share, size in SHARES.values()]
        self.cumulative = [sum(weights[:i + 1]) / sum(weights) for i in range(len(weights))]

    def talk(self, rng):
        """A conversation of two to four turns on different skills."""
        messages = []
        for _ in range(rng.randint(2, 4)):
            kind, body = "text", None
            while kind != "chat":
                kind, body = self.samplers[pick(rng, ["arithmetic", "moebius", "stories", "code", "poems", "word_problems", "moebius",
                                                  "unknown"])](rng)
            messages += body
        return "chat", messages

    def sample(self, rng):
        x = rng.random()
        skill = next(s for s, c in zip(self.skills, self.cumulative + [1.0]) if x <= c)
        kind, body = self.samplers[skill](rng)
        if kind == "chat" and rng.random() < 0.1:
            body = [{"role": "system", "content": pick(rng, SYSTEM)}] + body
        return skill, (kind, body)


def segments(document):
    """[(text, is learnt)] of a document; the joined text is what the chat template writes, less the last newline."""
    kind, body = document
    if kind == "text":
        return [(body + END_OF_TEXT, True)]
    out = []
    for i, m in enumerate(body):
        lead = ("\n" if i else "") + f"{IM_START}{m['role']}\n"
        if m["role"] == "assistant":
            out += [(lead, False), (m["content"] + IM_END, True)]
        else:
            out.append((lead + m["content"] + IM_END, False))
    return out


def encode(tokenizer, documents):
    """[(ids, flags)] of documents, with one batched call of the tokeniser."""
    parts = [segments(d) for d in documents]
    flat = [text for p in parts for text, _ in p]
    ids = iter(tokenizer.encode_batch_fast(flat, add_special_tokens=False))
    result = []
    for p in parts:
        tokens, flags = [], []
        for _, learnt in p:
            piece = next(ids).ids
            tokens += piece
            flags += [LEARN if learnt else 0] * len(piece)
        if tokens:
            flags[0] |= DOC_START
            result.append((tokens, flags))
    return result
