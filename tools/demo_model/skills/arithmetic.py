"""One- and two-step arithmetic with worked answers.

Held out: questions `a op b` chosen by hash (5 %, division 10 %), in either order for + and *, in any phrasing.
No training question asks them, and no worked step contains them, except the products by one digit or by a
multiple of ten that long multiplication is made of.
"""

import random
import re
import zlib

from skills import chat, pick

WORDS = {"+": ["plus", "added to"], "-": ["minus"], "*": ["times", "multiplied by"], "/": ["divided by", "over"]}
SIGNS = {"+": ["+"], "-": ["-"], "*": ["*", "x", "×"], "/": ["/", "÷"]}
PHRASES = [
    "What is {e}?", "What is {e}?", "Calculate {e}.", "Compute {e}.", "How much is {e}?", "{e} = ?", "{e}=", "{e}",
    "Please compute {e}.", "What does {e} equal?", "Tell me {e}.", "Work out {e}.", "Can you calculate {e}?",
    "what is {e}", "what's {e}?", "Solve: {e}", "Find the value of {e}.", "I need the result of {e}.",
]


def held_out(op, a, b):
    if op in "+*" and a > b:
        a, b = b, a
    return zlib.crc32(f"{a}{op}{b}".encode()) % (10 if op == "/" else 20) == 0


def apply(op, a, b):
    return {"+": a + b, "-": a - b, "*": a * b, "/": a // b if b else 0}[op]


def is_piece(op, a, b):
    """A product that long multiplication uses: by one digit, or by a multiple of ten."""
    return op == "*" and (b < 10 or b % 10 == 0)


def solve(op, a, b):
    """The worked answer, and the steps (op, a, b) it shows."""
    c = apply(op, a, b)
    if op == "/":
        return f"{a} / {b} = {c}, because {c} * {b} = {a}.", [(op, a, b), ("*", c, b)]
    if op == "*" and a > 10 and b > 10 and a % 10 and b % 10:
        tens, ones = b // 10 * 10, b % 10
        left, right = a * tens, a * ones
        work = f"{a} * {b} = {a} * {tens} + {a} * {ones} = {left} + {right} = {c}."
        return work, [("*", a, tens), ("*", a, ones), (op, a, b)]
    return f"{a} {op} {b} = {c}.", [(op, a, b)]


def allowed(steps, question=None):
    """No held-out operation among the steps, pieces of a long multiplication apart."""
    for op, a, b in steps:
        if max(a, b) > 99 or min(a, b) < 0 or not held_out(op, a, b):
            continue
        if (op, a, b) == question or not is_piece(op, a, b):
            return False
    return True


def operands(rng, op):
    if op == "/":
        b = rng.randint(1, 99) if rng.random() < 0.3 else rng.randint(1, 12)
        return b * rng.randint(0, 99 // b), b
    if rng.random() < 0.15:
        return rng.randint(0, 12), rng.randint(0, 99)
    return rng.randint(0, 99), rng.randint(0, 99)


def wide_operands(rng, op):
    """Beyond the tested range: what long multiplication adds up, and quotients of larger numbers."""
    if op == "+":
        kind = rng.random()
        if kind < 0.6:
            return rng.randint(1, 99) * rng.randint(1, 9) * 10, rng.randint(1, 99) * rng.randint(1, 9)
        return rng.randint(0, 999), rng.randint(0, 999)
    if op == "-":
        a = rng.randint(0, 999)
        return a, rng.randint(0, a)
    if op == "*":
        return rng.randint(11, 99), rng.randint(1, 9) * rng.choice((1, 10))
    b = rng.randint(2, 12)
    return b * rng.randint(2, 99), b


def expression(rng, op, a, b):
    if rng.random() < 0.25:
        return f"{a} {pick(rng, WORDS[op])} {b}"
    sign = pick(rng, SIGNS[op])
    return f"{a}{sign}{b}" if rng.random() < 0.2 and sign != "x" else f"{a} {sign} {b}"


def one_step(rng):
    while True:
        op = pick(rng, "++--***//")
        wide = rng.random() < 0.25
        a, b = (wide_operands if wide else operands)(rng, op)
        answer, steps = solve(op, a, b)
        if not allowed(steps, question=(op, a, b)):
            continue
        kind = rng.random()
        if kind < 0.08:
            return "text", answer
        question = pick(rng, PHRASES).format(e=expression(rng, op, a, b))
        if kind < 0.14:
            return "text", f"Question: {question}\nAnswer: {answer}"
        return chat(question, answer)


TWO_STEP = ["({a} {p} {b}) {q} {c}", "{a} {p} {b} {q} {c}"]


def two_step(rng):
    while True:
        p, q = pick(rng, "+-*"), pick(rng, "+-*/")
        a, b = rng.randint(1, 99), rng.randint(1, 99)
        if p == "*":
            a, b = rng.randint(2, 12), rng.randint(2, 12)
        mid = apply(p, a, b)
        c = rng.randint(2, 12) if q in "*/" else rng.randint(1, 99)
        if mid < 0 or (q == "*" and mid > 99) or (q == "/" and (mid == 0 or mid % c)):
            continue
        if not allowed([(p, a, b), (q, mid, c)]):
            continue
        bare = p == "*" or q in "+-"
        form = TWO_STEP[1 if bare and rng.random() < 0.7 else 0]
        e = form.format(a=a, b=b, c=c, p=p, q=q)
        end = apply(q, mid, c)
        answer = f"{a} {p} {b} = {mid}. {mid} {q} {c} = {end}. The answer is {end}."
        return chat(pick(rng, PHRASES).format(e=e), answer)


def sample(rng):
    return one_step(rng) if rng.random() < 0.75 else two_step(rng)


def test_items(n, seed=1):
    """Held-out one-step questions: operator uniform, operands uniform among the held-out pairs up to 99."""
    rng = random.Random(seed)
    pools = {op: [(a, b) for a in range(100) for b in range(100)
                  if held_out(op, a, b) and (op != "/" or (b and a % b == 0))] for op in "+-*/"}
    items = []
    for i in range(n):
        op = "+-*/"[i % 4]
        a, b = rng.choice(pools[op])
        question = pick(rng, PHRASES).format(e=expression(rng, op, a, b))
        items.append({"op": op, "a": a, "b": b, "answer": apply(op, a, b),
                      "messages": [{"role": "user", "content": question}],
                      "reference": solve(op, a, b)[0]})
    return items


def final_number(text, op=None):
    """The number an answer ends on (for a division: the one after the first equals sign)."""
    if op == "/":
        match = re.search(r"=\s*(-?\d+)", text)
        return int(match.group(1)) if match else None
    numbers = re.findall(r"-?\d+", text.replace(",", ""))
    return int(numbers[-1]) if numbers else None
