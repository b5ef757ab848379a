"""GSM8K (MIT licence): the train split, calculator annotations removed, names swapped for variety."""

import json
import re

from skills import chat, pick
from skills.word_problems import NAMES

COMMON = re.compile(r"\b([A-Z][a-z]{2,})\b")
NOT_NAMES = set("""The She He They Her His How What When Each There Then After Before Every Since This That These Those
Monday Tuesday Wednesday Thursday Friday Saturday Sunday January February March April May June July August September
October November December Christmas Halloween Easter Thanksgiving First Second Third Next Finally Therefore Thus
Because Their From For Altogether Total Together Half Twice One Two Three Four Five Six Seven Eight Nine Ten With
Since Now Initially Originally Some Many Another Other And But All Also Out Its You Your Calculate Find New York
American English French Spanish Chinese Japanese Mr Mrs Ms Dr Aunt Uncle Grandma Grandpa Mom Dad""".split())


def load(folder, split):
    with open(f"{folder}/gsm8k/{split}.jsonl", encoding="utf-8") as f:
        rows = [json.loads(line) for line in f]
    return [(r["question"], re.sub(r"<<[^>]*>>", "", r["answer"])) for r in rows]


def result(answer):
    """The number after ####, as a canonical string (None when there is none)."""
    match = re.search(r"####\s*\$?(-?[\d,]+(?:\.\d+)?)", answer)
    return match.group(1).replace(",", "").rstrip(".") if match else None


class Gsm8k:
    def __init__(self, folder):
        self.rows = load(folder, "train")

    def sample(self, rng):
        question, answer = pick(rng, self.rows)
        if rng.random() < 0.5:
            seen = [w for w in dict.fromkeys(COMMON.findall(question)) if w not in NOT_NAMES]
            swap = {w: pick(rng, NAMES) for w in seen if len(seen) <= 3 and w + "'" not in NOT_NAMES}
            if len(set(swap.values())) == len(swap):
                rename = lambda m: swap.get(m.group(1), m.group(1))
                question, answer = COMMON.sub(rename, question), COMMON.sub(rename, answer)
        if rng.random() < 0.1:
            return "text", f"Question: {question}\nAnswer: {answer}"
        return chat(question, answer)


def test_items(folder, n=None):
    return [{"messages": [{"role": "user", "content": q}], "reference": a, "answer": result(a)}
            for q, a in load(folder, "test")[:n]]
