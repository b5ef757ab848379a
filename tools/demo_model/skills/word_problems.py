"""Grade-school word problems of our own, two to four steps, in GSM8K's answer form (`#### N` last)."""

import random

from skills import chat, held_text, pick
from skills.arithmetic import allowed

NAMES = """Ada Ben Cara Dan Ella Finn Gina Hugo Iris Jack Kira Leo Mona Nils Olga Paul Quinn Rosa Sam Tess Umar Vera
Will Xenia Yara Zane Amir Bella Carlos Dina Emil Fatima Greta Hana Ivan Julia Kenji Lina Marco Nora Omar Petra""".split()
THINGS = """apples books pencils stickers marbles coins shells cards buttons stamps cookies oranges flowers stones
balloons toys candles eggs bottles ribbons""".split()
GOODS = [("pens", 1, 5), ("notebooks", 2, 9), ("shirts", 8, 30), ("tickets", 5, 25), ("sandwiches", 3, 9),
         ("plants", 4, 20), ("lamps", 10, 40), ("bags", 6, 25), ("cups", 2, 12), ("hats", 5, 20)]
PLACES = ["the market", "the school fair", "the library", "the park", "the farm", "the harbour", "the bakery"]


def share(r):
    n, m, t = pick(r, NAMES), pick(r, NAMES), pick(r, THINGS)
    a, b = r.randint(5, 60), r.randint(3, 40)
    c = r.randint(2, a + b - 1) if a + b > 3 else 2
    q = pick(r, [
        f"{n} has {a} {t}. {m} gives {n} {b} more {t}. Then {n} loses {c} of them. How many {t} does {n} have now?",
        f"{n} found {a} {t} at {pick(r, PLACES)} and {b} {t} at home. {n} gave {c} {t} to {m}. How many {t} are left?"])
    x, y = a + b, a + b - c
    return q, [f"{n} had {a} + {b} = {x} {t}.", f"Then {n} had {x} - {c} = {y} {t}."], y, [("+", a, b), ("-", x, c)]


def boxes(r):
    n, t = pick(r, NAMES), pick(r, THINGS)
    a, b, c = r.randint(2, 12), r.randint(2, 12), r.randint(1, 30)
    x, y = a * b, a * b + c
    q = pick(r, [
        f"{n} packs {t} into {a} boxes with {b} {t} in each box. {c} {t} do not fit. How many {t} does {n} have?",
        f"There are {a} bags with {b} {t} in each bag, and {n} brings {c} more {t}. How many {t} are there in all?"])
    return q, [f"There are {a} * {b} = {x} {t} in them.", f"In total there are {x} + {c} = {y} {t}."], y, [("*", a, b), ("+", x, c)]


def shopping(r):
    n, (g, lo, hi), (h, lo2, hi2) = pick(r, NAMES), pick(r, GOODS), pick(r, GOODS)
    a, p, b, s = r.randint(2, 9), r.randint(lo, hi), r.randint(2, 6), r.randint(lo2, hi2)
    if g == h:
        return None
    x, y = a * p, b * s
    q = f"{n} buys {a} {g} for ${p} each and {b} {h} for ${s} each. How much does {n} spend in total?"
    return q, [f"The {g} cost {a} * {p} = ${x}.", f"The {h} cost {b} * {s} = ${y}.", f"{n} spends {x} + {y} = ${x + y}."], x + y, \
        [("*", a, p), ("*", b, s), ("+", x, y)]


def change(r):
    n, (g, lo, hi) = pick(r, NAMES), pick(r, GOODS)
    a, p = r.randint(2, 8), r.randint(lo, hi)
    x = a * p
    paid = (x // 10 + r.randint(1, 4)) * 10
    q = f"{n} buys {a} {g}. Each costs ${p}. {n} pays with ${paid}. How much change does {n} get?"
    return q, [f"The {g} cost {a} * {p} = ${x}.", f"The change is {paid} - {x} = ${paid - x}."], paid - x, [("*", a, p), ("-", paid, x)]


def weekly(r):
    n = pick(r, NAMES)
    verb, unit = pick(r, [("reads", "pages"), ("runs", "miles"), ("writes", "lines"), ("earns", "dollars"), ("bakes", "loaves")])
    a, d, w = r.randint(2, 20), r.randint(2, 7), r.randint(2, 6)
    x = a * d
    q = f"{n} {verb} {a} {unit} a day, {d} days a week. How many {unit} is that in {w} weeks?"
    return q, [f"In one week that is {a} * {d} = {x} {unit}.", f"In {w} weeks it is {x} * {w} = {x * w} {unit}."], x * w, [("*", a, d), ("*", x, w)]


def split(r):
    n, t = pick(r, NAMES), pick(r, THINGS)
    k, each, extra = r.randint(2, 9), r.randint(2, 12), r.randint(2, 40)
    total = k * each
    start = total + extra
    q = f"{n} has {start} {t}. {n} keeps {extra} of them and shares the rest equally among {k} friends. How many {t} does each friend get?"
    return q, [f"{n} shares {start} - {extra} = {total} {t}.", f"Each friend gets {total} / {k} = {each} {t}."], each, [("-", start, extra), ("/", total, k)]


def twice(r):
    n, m, t = pick(r, NAMES), pick(r, NAMES), pick(r, THINGS)
    a, k = r.randint(3, 30), r.randint(2, 4)
    if n == m:
        return None
    times = {2: "twice", 3: "three times", 4: "four times"}[k]
    q = f"{n} has {a} {t}. {m} has {times} as many {t} as {n}. How many {t} do they have altogether?"
    return q, [f"{m} has {a} * {k} = {a * k} {t}.", f"Together they have {a} + {a * k} = {a + a * k} {t}."], a + a * k, \
        [("*", a, k), ("+", a, a * k)]


def half(r):
    n, m, t = pick(r, NAMES), pick(r, NAMES), pick(r, THINGS)
    a = 2 * r.randint(2, 45)
    b = r.randint(1, 30)
    if n == m:
        return None
    q = f"{n} collected {a} {t}. {m} collected half as many and then found {b} more. How many {t} does {m} have?"
    return q, [f"Half of {a} is {a} / 2 = {a // 2}.", f"{m} has {a // 2} + {b} = {a // 2 + b} {t}."], a // 2 + b, [("/", a, 2), ("+", a // 2, b)]


def age(r):
    n, m = pick(r, NAMES), pick(r, NAMES)
    a, d, y = r.randint(4, 40), r.randint(2, 20), r.randint(2, 15)
    if n == m:
        return None
    q = f"{n} is {a} years old. {m} is {d} years older than {n}. How old will {m} be in {y} years?"
    return q, [f"{m} is {a} + {d} = {a + d} years old.", f"In {y} years {m} will be {a + d} + {y} = {a + d + y}."], a + d + y, \
        [("+", a, d), ("+", a + d, y)]


def rows(r):
    p = pick(r, ["theatre", "garden", "orchard", "hall"])
    t = {"theatre": "seats", "garden": "flowers", "orchard": "trees", "hall": "chairs"}[p]
    a, b = r.randint(3, 15), r.randint(3, 12)
    x = a * b
    c = r.randint(1, x - 1)
    q = f"A {p} has {a} rows of {b} {t}. {c} of the {t} are new. How many {t} are old?"
    return q, [f"There are {a} * {b} = {x} {t}.", f"The old ones are {x} - {c} = {x - c} {t}."], x - c, [("*", a, b), ("-", x, c)]


KINDS = [share, boxes, shopping, change, weekly, split, twice, half, age, rows]


def problem(rng, held=False):
    """A question and its answer, from the held-out ones or from the others."""
    while True:
        made = pick(rng, KINDS)(rng)
        if made and allowed(made[3]) and held_text(made[0]) == held:
            question, steps, result, _ = made
            return question, "\n".join(steps) + f"\n#### {result}"


def sample(rng):
    question, answer = problem(rng)
    if rng.random() < 0.1:
        return "text", f"Question: {question}\nAnswer: {answer}"
    return chat(question, answer)


def test_items(n, seed=2):
    rng = random.Random(f"test {seed}")
    items = []
    for _ in range(n):
        question, answer = problem(rng, held=True)
        items.append({"messages": [{"role": "user", "content": question}], "reference": answer})
    return items
