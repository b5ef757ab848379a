"""Measures the demo checkpoint on prompts held out of training, with fixed seeds.

    python eval.py --model models/demo --data DATA                                  (torch; all figures)
    python eval.py --model models/demo --data DATA --engine build/release/moebius   (the figures that need only answers)
"""

import argparse
import ast
import json
import random
import time

import torch

from backends import EngineBackend, ReplayBackend, TorchBackend
from routing_stats import held_out_loss, histogram_report, mtp_acceptance
from skills import arithmetic, code, gsm8k, poems, stories, unknown, word_problems
from skills.moebius import Moebius


def share(hits):
    hits = list(hits)
    return round(sum(hits) / max(1, len(hits)), 4)


def eval_arithmetic(backend, items, transcript):
    answers = backend.answer(items, 48)
    right = [arithmetic.final_number(text, i["op"]) == i["answer"] for i, (text, _, _) in zip(items, answers)]
    transcript("arithmetic", items, answers, right)
    by_op = {op: share(r for r, i in zip(right, items) if i["op"] == op) for op in "+-*/"}
    return {"questions": len(items), "right": share(right), "by_operator": by_op}, answers


def eval_word_problems(backend, items, transcript):
    answers = backend.answer(items, 128)
    right = [gsm8k.result(text) == gsm8k.result(i["reference"]) for i, (text, _, _) in zip(items, answers)]
    transcript("word_problems", items, answers, right)
    return {"questions": len(items), "right": share(right)}, answers


def eval_gsm8k(backend, items, transcript):
    answers = backend.answer(items, 320)
    right = [gsm8k.result(text) == i["answer"] for i, (text, _, _) in zip(items, answers)]
    transcript("gsm8k", items, answers, right)
    return {"questions": len(items), "right": share(right), "ended": share(s for _, _, s in answers)}, answers


def eval_stories(backend, items, transcript):
    answers = backend.answer(items, 320, temperature=0.8, seed=1)
    repeats = [stories.repeated_4grams(text) for text, _, _ in answers]
    transcript("stories", items, answers, repeats)
    words = [len(text.split()) for text, _, _ in answers]
    return {"stories": len(items), "temperature": 0.8, "mean_repeated_4grams": round(sum(repeats) / len(repeats), 5),
            "worst_repeated_4grams": round(max(repeats), 5), "ended": share(s for _, _, s in answers),
            "mean_words": round(sum(words) / len(words), 1)}, answers


def asked_size(question):
    if "five" in question or "五言" in question:
        return 5
    return 7 if "seven" in question or "七言" in question else None


def eval_poems(backend, items, transcript):
    answers = backend.answer(items, 200, temperature=items[0]["temperature"], seed=2)
    sizes = [{len(c) for c in poems.clauses(text)} for text, _, _ in answers]
    equal = [len(s) == 1 and s <= {5, 7} for s in sizes]
    transcript("poems", items, answers, equal)
    asked = [(asked_size(i["messages"][-1]["content"]), s) for i, s in zip(items, sizes)]
    return {"poems": len(items), "temperature": items[0]["temperature"], "all_lines_equal": share(equal),
            "form_as_asked": share(s == {a} for a, s in asked if a)}, answers


def eval_moebius(backend, sets, transcript):
    report, every = {}, []
    for kind, items in sets.items():
        answers = backend.answer(items, 96)
        right = [text == i["reference"] for i, (text, _, _) in zip(items, answers)]
        transcript(f"moebius_{kind}", items, answers, right)
        report[kind] = {"questions": len(items), "word_for_word": share(right)}
        every += answers
    return report, every


def eval_unknown(backend, items, transcript):
    answers = backend.answer(items, 96)
    right = [text == i["reference"] for i, (text, _, _) in zip(items, answers)]
    transcript("unknown", items, answers, right)
    return {"questions": len(items), "word_for_word": share(right)}, answers


def parses(item, text):
    """A Python answer parses; a C++ one has balanced brackets (no compiler is asked for)."""
    body = "\n".join(line for line in text.split("\n") if not line.startswith("```"))
    if "```python" not in text:
        return all(body.count(a) == body.count(b) > 0 for a, b in ("()", "{}"))
    try:
        ast.parse(body)
        return True
    except SyntaxError:
        return False


def eval_code(backend, items, transcript):
    answers = backend.answer(items, 200)
    right = [text == i["reference"] for i, (text, _, _) in zip(items, answers)]
    transcript("code", items, answers, right)
    return {"functions": len(items), "equal_to_reference": share(right),
            "well_formed": share(parses(i, a[0]) for i, a in zip(items, answers))}, answers


def make_items(args):
    verse, qa = poems.Poems(args.data), Moebius()
    n = args.questions
    verses = verse.test_items(min(n, 200), random.Random(5))
    return {
        "arithmetic": arithmetic.test_items(2 * n), "word_problems": word_problems.test_items(n),
        "stories": stories.test_items(min(n, 100)), "code": code.test_items(n), "unknown": unknown.test_items(min(n, 100)),
        "poems": [dict(i, temperature=args.poem_temperature) for i in verses],
        "moebius": {kind: qa.test_items(kind, random.Random(6))[:args.moebius] for kind in ("hashed", "held", "listed")},
        "gsm8k": gsm8k.test_items(args.data, args.gsm8k),
    }


RUNNERS = {"arithmetic": eval_arithmetic, "word_problems": eval_word_problems, "stories": eval_stories, "code": eval_code,
           "poems": eval_poems, "moebius": eval_moebius, "unknown": eval_unknown, "gsm8k": eval_gsm8k}


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--model", required=True)
    p.add_argument("--data", required=True)
    p.add_argument("--engine", help="path of the moebius program; without it torch answers")
    p.add_argument("--engine-arg", action="append", default=[], help="passed on, e.g. --engine-arg=--dtype=float32")
    p.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    p.add_argument("--dtype", default="bfloat16", choices=["bfloat16", "float32"])
    p.add_argument("--questions", type=int, default=500, help="size of most sets (arithmetic: twice that)")
    p.add_argument("--gsm8k", type=int, default=None, help="only the first N test problems (default all)")
    p.add_argument("--poem-temperature", type=float, default=0.5)
    p.add_argument("--moebius", type=int, default=None, help="only the first N questions of each Moebius set (default all)")
    p.add_argument("--skills", default=",".join(RUNNERS))
    p.add_argument("--out", help="report as JSON")
    p.add_argument("--transcript", help="every prompt, answer and mark, as JSON lines")
    p.add_argument("--answers", help="take the answers from this transcript of an earlier run with the same sets")
    p.add_argument("--read", type=int, default=256, help="answers a skill that loss, acceptance and routing are read from")
    p.add_argument("--histogram", help="write the expert histogram here (torch)")
    args = p.parse_args()
    if args.engine:
        backend = EngineBackend(args.model, args.engine, args.engine_arg)
    elif args.answers:
        backend = ReplayBackend(args.model, args.device, getattr(torch, args.dtype), args.answers)
    else:
        backend = TorchBackend(args.model, args.device, getattr(torch, args.dtype))
    report = {"backend": backend.name}
    lines = open(args.transcript, "w", encoding="utf-8") if args.transcript else None

    def transcript(skill, items, answers, marks):
        for item, (text, _, stopped), mark in zip(items, answers, marks):
            if lines:
                lines.write(json.dumps({"skill": skill, "prompt": item["messages"][-1]["content"], "answer": text,
                                        "mark": mark, "stopped": stopped}, ensure_ascii=False) + "\n")

    wanted = args.skills.split(",")
    sets, read = make_items(args), {}
    for skill in wanted:
        began = time.time()
        report[skill], answers = RUNNERS[skill](backend, sets[skill], transcript)
        items = sets[skill] if skill != "moebius" else [i for s in sets[skill].values() for i in s]
        read[skill] = (items, answers)
        print(skill, report[skill], f"{time.time() - began:.1f} s", flush=True)
    if not args.engine:
        report["held_out_loss"] = held_out_loss(backend, {s: v[0] for s, v in read.items()}, args.read)
        report["mtp_acceptance"], counts = mtp_acceptance(backend, read, args.read)
        report["experts"], histogram = histogram_report(counts)
        print(json.dumps({k: report[k] for k in ("held_out_loss", "mtp_acceptance", "experts")}, indent=1))
        if args.histogram:
            with open(args.histogram, "w", encoding="utf-8") as f:
                json.dump(histogram, f)
                f.write("\n")
    if args.out:
        with open(args.out, "w", encoding="utf-8") as f:
            json.dump(report, f, indent=1, ensure_ascii=False)
            f.write("\n")


if __name__ == "__main__":
    main()
