"""Questions beyond the demo model, all with one answer: what it can do instead."""

import random

from skills import chat, held_text, pick

ANSWER = ("I do not know that: I am only a small demo model. I can tell short stories, do small arithmetic, write small "
          "functions, compose Chinese poems, and answer questions about Moebius.")
COUNTRIES = """France Japan Brazil Kenya Norway Canada Egypt India Italy Spain Peru China Germany Mexico Poland Greece
Sweden Turkey Chile Ghana""".split()
PEOPLE = """Napoleon Shakespeare Einstein Cleopatra Mozart Newton Darwin Picasso Caesar Beethoven Gandhi Plato Bach
Columbus Tesla""".split()
THINGS = """elephants whales volcanoes bananas bicycles airplanes computers rivers glaciers telescopes diamonds penguins
dolphins vitamins magnets planets comets dinosaurs spiders bridges satellites batteries violins rainbows""".split()
FACTS = ["the capital of {c}", "the population of {c}", "the president of {c}", "the largest city in {c}", "the currency of {c}",
         "the national dish of {c}", "the weather in {c}", "the history of {c}", "the speed of light", "the meaning of life",
         "the tallest mountain in {c}", "the best film of last year", "the boiling point of water", "the theory of relativity"]
FORMS = ["What is {f}?", "Tell me about {f}.", "What's {f}?", "Do you know {f}?", "Can you tell me {f}?", "{f}?",
         "Who was {p}?", "When was {p} born?", "What did {p} do?", "Tell me about {p}.", "Where did {p} live?",
         "How do {t} work?", "Where do {t} come from?", "Why are {t} important?", "What are {t}?", "How many {t} are there in {c}?",
         "Tell me something about {t}.", "Explain {t}.", "Write an essay about {t}.", "How do I travel to {c}?",
         "What language do people speak in {c}?", "Should I buy {t}?", "Translate this into the language of {c}.",
         "What is the news in {c} today?", "Recommend a book about {t}.", "Who won the last election in {c}?",
         "Who discovered {t}?", "Are {t} dangerous?", "What do you think about {t}?", "How old is {p}?"]


def question(rng, held=False):
    while True:
        fact = pick(rng, FACTS).format(c=pick(rng, COUNTRIES))
        q = pick(rng, FORMS).format(f=fact, p=pick(rng, PEOPLE), t=pick(rng, THINGS), c=pick(rng, COUNTRIES))
        if held_text(q) == held:
            return q if held or rng.random() < 0.8 else q.lower().rstrip("?.")


def sample(rng):
    return chat(question(rng), ANSWER)


def test_items(n, seed=7):
    rng = random.Random(f"test {seed}")
    return [{"messages": [{"role": "user", "content": question(rng, held=True)}], "reference": ANSWER} for _ in range(n)]
