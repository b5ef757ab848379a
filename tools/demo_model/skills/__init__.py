"""One module a skill: `sample(rng)` gives a training document, `test_items(n)` gives items held out of training.

A document is ("text", str) or ("chat", [{"role", "content"}, ...]).
"""


def chat(question, answer):
    return "chat", [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


def pick(rng, options):
    return options[int(rng.random() * len(options))]
