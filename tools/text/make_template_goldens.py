#!/usr/bin/env python3
"""Writes tests/golden/templates/: what jinja2, configured as transformers does, makes of our templates.

Usage: make_template_goldens.py [--check-package NAME ...]
Needs jinja2 (template_oracle.py). families.json: each *.jinja there on each conversation; edge_cases.json: the table of
template_cases.py. Both are read by src/text/jinja/golden_test.cc, without Python.
--check-package compares nothing that is kept: it renders the chat_template of a package's tokenizer_config.json on the
conversations with jinja2 and with the program of --program (tests/tools/render_template.cc).
"""
import argparse
import importlib.util
import json
import pathlib
import subprocess
import re

import template_cases
import template_oracle

ROOT = pathlib.Path(__file__).resolve().parents[2]
FOLDER = ROOT / "tests" / "golden" / "templates"
NOON = 1_732_190_400  # 21 November 2024, 12:00 UTC: the same day in (almost) every time zone

TOOLS = [
    {"type": "function", "function": {
        "name": "get_weather", "description": "Weather of a city, in \u00b0C",
        "parameters": {"type": "object", "properties": {
            "city": {"type": "string", "description": "The city's name, e.g. \"\u5317\u4eac\""},
            "days": {"type": "integer", "default": 1, "minimum": 0, "maximum": 14.5}}, "required": ["city"]}}},
    {"type": "function", "function": {"name": "add", "description": "a + b < c & 'd'",
                                      "parameters": {"type": "object", "properties": {}}}},
]
CALL = {"id": "call00001", "type": "function",
        "function": {"name": "get_weather", "arguments": {"city": "\u5317\u4eac", "days": 2, "unit": None}}}
CALL_TEXT = {"id": "call00002", "type": "function", "function": {"name": "add", "arguments": "{\"a\": 1, \"b\": 2.5}"}}

CONVERSATIONS = {
    "user": [{"role": "user", "content": "Hello!"}],
    "system": [{"role": "system", "content": "  Be kind. "}, {"role": "user", "content": "Who are you?"}],
    "turns": [{"role": "user", "content": "1+1?"}, {"role": "assistant", "content": " 2 \n"},
              {"role": "user", "content": "And 2+2?\n"}],
    "system_turns": [{"role": "system", "content": "Short."}, {"role": "user", "content": "a"},
                     {"role": "assistant", "content": "b"}, {"role": "user", "content": "c"},
                     {"role": "assistant", "content": "d"}],
    "unicode": [{"role": "user", "content": "\u4f60\u597d \U0001f600 \u00e9\u0000\u2028 <|im_end|> {{ x }} {% if %}"},
                {"role": "assistant", "content": "\u597d\u3002\t\"quoted\" \\ 'single'"}],
    "thinking": [{"role": "user", "content": "Think."},
                 {"role": "assistant", "content": "<think>\nHm.\n</think>\n\nDone."},
                 {"role": "user", "content": "Again."},
                 {"role": "assistant", "content": "<think>\n\nMore.\n</think>\nYes."}],
    "reasoning": [{"role": "user", "content": "Q"},
                  {"role": "assistant", "content": "A", "reasoning_content": "\nbecause\n"}],
    "tool_call": [{"role": "user", "content": "Weather?"},
                  {"role": "assistant", "content": "Let me look.", "tool_calls": [CALL]},
                  {"role": "tool", "content": "{\"t\": 7}", "tool_call_id": "call00001", "name": "get_weather"},
                  {"role": "assistant", "content": "7 degrees."}],
    "tool_calls": [{"role": "system", "content": "S"}, {"role": "user", "content": "Both."},
                   {"role": "assistant", "content": None, "tool_calls": [CALL_TEXT, CALL_TEXT]},
                   {"role": "tool", "content": "3.5", "tool_call_id": "call00002"},
                   {"role": "tool", "content": "4", "tool_call_id": "call00002"}],
    "parts": [{"role": "user", "content": [{"type": "text", "text": " Look: "}, {"type": "image", "image": "x.png"},
                                           {"type": "text", "text": "what?"}]}],
    "two_users": [{"role": "user", "content": "a"}, {"role": "user", "content": "b"}],
    "odd_role": [{"role": "critic", "content": "bad"}],
    "empty": [],
    "no_content": [{"role": "user"}],
}


def contexts():
    for name, messages in CONVERSATIONS.items():
        for tools in (None, TOOLS):
            for prompt in (False, True):
                context = {"messages": messages, "tools": tools, "documents": None, "add_generation_prompt": prompt,
                           "bos_token": "<s>", "eos_token": "</s>"}
                yield f"{name}{'+tools' if tools else ''}{'+prompt' if prompt else ''}", context
    for name, extra in (("no_thinking", {"enable_thinking": False}), ("date", {"date_string": "1 Jan 2025"}),
                        ("with_date", {"with_date": True}), ("tools_in_system", {"tools_in_user_message": False})):
        yield name, {"messages": CONVERSATIONS["user"], "tools": TOOLS, "documents": None,
                     "add_generation_prompt": True, "bos_token": "<s>", "eos_token": "</s>", **extra}


def golden(source, context):
    """The expected outcome, or None where the text holds an object's address."""
    kind, text = template_oracle.render(source, context, NOON)
    if kind == "text" and re.search(r" at 0x[0-9a-f]+>", text):
        return None
    return {"text": text} if kind == "text" else {"error": text}


def write(name, content):
    path = FOLDER / name
    path.write_text(json.dumps(content, ensure_ascii=False, indent=0, separators=(",", ":")) + "\n")
    print(f"{path.relative_to(ROOT)}: {path.stat().st_size} bytes")


def make():
    all_contexts = list(contexts())
    families = {}
    for path in sorted(FOLDER.glob("*.jinja")):
        families[path.name] = {name: golden(path.read_text(), context) for name, context in all_contexts}
    write("families.json", {"now": NOON, "contexts": dict(all_contexts), "expected": families})
    edge_cases = []
    for group, templates in template_cases.ALL.items():
        for source in templates:
            expected = golden(source, template_cases.CONTEXT)
            if expected is not None:
                edge_cases.append({"group": group, "template": source, **expected})
    write("edge_cases.json", {"context": template_cases.CONTEXT, "cases": edge_cases})


def package_templates(package):
    spec = importlib.util.find_spec(package)
    root = pathlib.Path(spec.submodule_search_locations[0])
    for path in sorted(root.rglob("*")):
        if path.name == "chat_template.jinja":
            yield path, path.read_text()
        elif path.name == "tokenizer_config.json":
            field = json.loads(path.read_text()).get("chat_template")
            for entry in field if isinstance(field, list) else [{"template": field}] if field else []:
                yield path, entry["template"]


def check(packages, program):
    process = subprocess.Popen([program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    different = 0
    for package in packages:
        for path, source in package_templates(package):
            outcomes = {"text": 0, "error": 0}
            for name, context in contexts():
                kind, expected = template_oracle.render(source, context, NOON)
                process.stdin.write(json.dumps({"template": source, "context": context, "now": NOON}) + "\n")
                process.stdin.flush()
                reply = json.loads(process.stdout.readline())
                outcomes[kind] += 1
                if ("text" in reply) != (kind == "text") or (kind == "text" and reply["text"] != expected):
                    different += 1
                    print(f"{path} on {name}:\n  jinja2: {expected!r}\n  ours:   {reply}")
            print(f"{package}: {path.name}, {len(source)} characters: {outcomes}")
    print(f"{different} different")
    raise SystemExit(1 if different else 0)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check-package", nargs="*", default=[])
    parser.add_argument("--program")
    args = parser.parse_args()
    if args.check_package:
        check(args.check_package, args.program)
    print(f"oracle: {template_oracle.ORACLE}")
    make()


main()
