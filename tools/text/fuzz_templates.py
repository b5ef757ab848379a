#!/usr/bin/env python3
"""Renders random templates with jinja2 and with ours, and prints where they differ.

Usage: fuzz_templates.py PATH_OF/render_template [--cases 5000] [--seed 1]
Needs jinja2 (see template_oracle.py). A template that jinja2 refuses must be refused by ours, and the other way round;
what ours calls unsupported is counted apart. Exits 1 on any difference.
"""
import argparse
import json
import random
import re
import subprocess

import template_oracle
from template_cases import CONTEXT

NAMES = ["messages", "n", "f", "s", "e", "t", "z", "l", "d", "u", "nested", "people", "missing", "i", "x", "y"]
STRINGS = ["''", "'a'", "'Hello World'", "' b '", "'a,b'", "'\\n'", "\"it's\"", "'é你'", "'<b>'", "'user'", "'name'", "'10'"]
FILTERS = ["trim", "length", "upper", "lower", "title", "capitalize", "join", "join(',')", "list", "first", "last", "tojson",
           "default('q')", "d('', true)", "string", "int", "float", "abs", "round", "sum", "min", "max", "sort", "unique|list",
           "reverse|list", "reverse", "map('upper')|list", "map('string')|join('-')", "map(attribute='name')|list", "select|list",
           "reject('none')|list", "select('string')|list", "selectattr('age', 'gt', 26)|list", "rejectattr('name')|list",
           "items|list", "dictsort", "indent", "indent(2, true)", "replace('a', 'b')", "replace('', '.')", "escape", "safe",
           "batch(2)|list", "wordcount", "tojson(indent=1)", "length|string", "count", "center(9)", "truncate(5)", "urlencode",
           "groupby('age')", "format(1)", "sort(attribute='name')", "sum(attribute='age')", "slice(2)|list", "int(7, 16)"]
TESTS = ["defined", "undefined", "none", "string", "mapping", "iterable", "sequence", "number", "integer", "float", "boolean",
         "true", "false", "odd", "even", "upper", "lower", "eq 1", "in [1, 'a']", "divisibleby 2", "gt 1", "ne none", "callable"]
METHODS = ["strip()", "upper()", "split()", "split('a')", "split(',', 1)", "rsplit(none, 1)", "startswith('a')", "endswith(('b', 'd'))",
           "replace('l', 'L')", "title()", "capitalize()", "find('l')", "count('l')", "join(['a', 'b'])", "isdigit()", "splitlines()",
           "items()", "keys()", "values()", "get('a')", "get('zz', 1)", "lstrip('H ')", "rstrip('d')", "format(1, 2)", "index(1)",
           "append(1)", "isupper()", "partition(' ')", "zfill(5)", "swapcase()", "center(7, '*')", "rfind('o')", "copy()"]
ATTRIBUTES = ["role", "name", "a", "x", "x.y", "items", "zz", "index", "0", "content"]
BINARY = ["+", "-", "*", "/", "//", "%", "**", "~", "~", "+", "==", "!=", "<", ">", "<=", ">=", "in", "not in", "and", "or"]


class Generator:
    def __init__(self, rng):
        self.rng = rng

    def pick(self, options):
        return self.rng.choice(options)

    def atom(self):
        r = self.rng.random()
        if r < 0.45:
            return self.pick(NAMES)
        if r < 0.65:
            return self.pick(STRINGS)
        if r < 0.8:
            return str(self.rng.randint(0, 12))
        return self.pick(["1.5", "0.25", "2e3", "true", "false", "none", "[]", "{}", "()", "[1, 2, 3]", "{'a': 1}", "(1, 'b')",
                          "range(4)", "loop.index", "loop.last", "ns.v", "messages[0]", "people[1]", "[none, 'x']"])

    def expr(self, depth):
        if depth <= 0:
            return self.atom()
        kind = self.rng.randint(0, 13)
        sub = lambda: self.expr(depth - 1 - self.rng.randint(0, 1))
        if kind <= 1:
            return self.atom()
        if kind == 2:
            return f"{sub()} {self.pick(BINARY)} {sub()}"
        if kind == 3:
            return f"({sub()})|{self.pick(FILTERS)}"
        if kind == 4:
            return f"{self.atom()}|{self.pick(FILTERS)}"
        if kind == 5:
            return f"{sub()} is {self.pick(['', 'not '])}{self.pick(TESTS)}"
        if kind == 6:
            return f"({sub()}).{self.pick(METHODS)}"
        if kind == 7:
            return f"{self.atom()}.{self.pick(ATTRIBUTES)}"
        if kind == 8:
            return f"{self.pick(NAMES)}[{sub()}]"
        if kind == 9:
            bound = lambda: self.pick(["", "", "0", "1", "-1", "2", "-3", "n"])
            return f"{self.pick(NAMES)}[{bound()}:{bound()}{self.pick(['', ':' + self.pick(['2', '-1', '1', ''])])}]"
        if kind == 10:
            return f"({sub()} if {sub()}" + self.pick([")", f" else {sub()})"])
        if kind == 11:
            return self.pick([f"[{sub()}, {sub()}]", f"{{{self.pick(STRINGS)}: {sub()}}}", f"({sub()}, {sub()})"])
        if kind == 12:
            return f"{self.pick(['not ', '-', '+', 'not not '])}{sub()}"
        return f"{sub()} {self.pick(['<', '==', '<=', '!=', 'in'])} {sub()} {self.pick(['<', '==', '>'])} {sub()}"

    def space(self):
        return self.pick(["", "", " ", "\n", "  \n", "\n  ", "\n\n", "x ", "\ty\n"])

    def tag(self, body):
        return "{%" + self.pick(["", "", "", "-", "+"]) + " " + body + " " + self.pick(["", "", "", "-", "+"]) + "%}"

    def statement(self, depth):
        kind = self.rng.randint(0, 11)
        inner = lambda: self.body(depth - 1)
        if kind <= 3 or depth <= 0:
            return "{{" + self.pick(["", "", "-"]) + " " + self.expr(3) + " " + self.pick(["", "", "-"]) + "}}"
        if kind == 4:
            orelse = self.pick(["", self.tag("else") + inner(), self.tag("elif " + self.expr(2)) + inner()])
            return self.tag("if " + self.expr(2)) + inner() + orelse + self.tag("endif")
        if kind in (5, 6):
            target = self.pick(["i", "x", "i, y"])
            source = self.pick(["l", "messages", "d", "s", "people", "range(3)", "d.items()", "missing", self.expr(2)])
            test = self.pick(["", "", " if " + self.expr(2), " if loop.index"])
            orelse = self.pick(["", "", self.tag("else") + inner()])
            control = self.pick(["", "", self.tag("if " + self.expr(1)) + self.tag(self.pick(["break", "continue"])) + self.tag("endif")])
            return self.tag(f"for {target} in {source}{test}") + inner() + control + inner() + orelse + self.tag("endfor")
        if kind == 7:
            return self.tag(f"set {self.pick(['x', 'y', 'n', 's'])} = {self.expr(3)}")
        if kind == 8:
            return self.tag("set " + self.pick(["x", "y"]) + self.pick(["", " | upper", " | trim"])) + inner() + self.tag("endset")
        if kind == 9:
            return self.tag("set ns = namespace(v=" + self.expr(1) + ")") + inner() + self.tag("set ns.v = " + self.expr(2)) + "{{ ns.v }}"
        if kind == 10:
            return (self.tag("macro m(i, x=" + self.expr(1) + ")") + inner() + self.tag("endmacro")
                    + "{{ m(" + self.pick(["", self.expr(1), self.expr(1) + ", " + self.expr(1), "x=" + self.expr(1)]) + ") }}")
        return self.pick([lambda: self.tag("filter " + self.pick(["upper", "trim", "indent(2)"])) + inner() + self.tag("endfilter"),
                          lambda: self.tag("with x = " + self.expr(1)) + inner() + self.tag("endwith"),
                          lambda: self.tag("generation") + inner() + self.tag("endgeneration"),
                          lambda: "{# c " + self.pick(["#}", "-#}", "+#}"]),
                          lambda: self.tag("raw") + " {{ x }} " + self.tag("endraw")])()

    def body(self, depth):
        return "".join(self.space() + self.statement(depth) for _ in range(self.rng.randint(1, 2))) + self.space()


def is_address(text):
    return re.search(r" at 0x[0-9a-f]+>|<function|<built-in|<jinja2|<class|<bound|LoopContext|<transformers|<reversed|iterator object", text)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("program")
    parser.add_argument("--cases", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    process = subprocess.Popen([args.program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    counts = {"text": 0, "error": 0, "unsupported": 0, "different": 0, "address": 0}
    for case in range(args.cases):
        generator = Generator(random.Random(args.seed * 1_000_003 + case))
        # Most expressions at random are errors: short templates reach further.
        template = "{{ " + generator.expr(2) + " }}" if case % 2 else generator.body(case % 3)
        kind, expected = template_oracle.render(template, CONTEXT)
        process.stdin.write(json.dumps({"template": template, "context": CONTEXT}) + "\n")
        process.stdin.flush()
        reply = json.loads(process.stdout.readline())
        if kind == "text" and is_address(expected):
            counts["address"] += 1  # of an object: nobody's to reproduce
        elif reply.get("unsupported"):
            counts["unsupported"] += 1
            if args.cases <= 50:
                print(reply["error"])
        elif ("text" in reply) != (kind == "text") or (kind == "text" and reply["text"] != expected):
            counts["different"] += 1
            print(f"--- case {case}: {template!r}\n  jinja2: {kind} {expected!r}\n  ours:   {reply}")
        else:
            counts[kind] += 1
    print(f"oracle {template_oracle.ORACLE}: {counts}")
    raise SystemExit(1 if counts["different"] else 0)


main()
