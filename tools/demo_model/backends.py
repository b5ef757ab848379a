"""Who answers the prompts of an evaluation: the training code (torch) or the engine (`moebius run --input-file`)."""

import json
import os
import subprocess
import tempfile

import torch
from tokenizers import Tokenizer

import checkpoint
from config import IM_END, IM_START
from generate import generate

STOP_IDS = [2, 0]


def render(messages):
    """What the chat template writes for these messages, with the generation prompt."""
    body = "".join(f"{IM_START}{m['role']}\n{m['content']}{IM_END}\n" for m in messages)
    return body + f"{IM_START}assistant\n"


class TorchBackend:
    def __init__(self, folder, device, dtype):
        self.name = f"torch {torch.__version__}, {device}, {str(dtype).split('.')[-1]}"
        self.tokenizer = Tokenizer.from_file(f"{folder}/tokenizer.json")
        self.model = checkpoint.read(folder, device, dtype)

    def prompt_ids(self, item):
        return self.tokenizer.encode(render(item["messages"]), add_special_tokens=False).ids

    def answer(self, items, max_tokens, temperature=0.0, seed=0):
        """[(text, ids, stopped)] for each item."""
        prompts = [self.prompt_ids(i) for i in items]
        out = generate(self.model, prompts, max_tokens, STOP_IDS, temperature, seed)
        return [(self.tokenizer.decode(ids, skip_special_tokens=True), ids, stopped) for ids, stopped in out]


class ReplayBackend(TorchBackend):
    """Takes the answers from an earlier run's transcript; the model only reads them (loss, acceptance, routing)."""

    def __init__(self, folder, device, dtype, transcript):
        super().__init__(folder, device, dtype)
        self.name += ", answers of an earlier run"
        self.answers = {}
        with open(transcript, encoding="utf-8") as f:
            for row in map(json.loads, f):
                self.answers.setdefault(row["prompt"], []).append((row["answer"], row["stopped"]))

    def answer(self, items, max_tokens, temperature=0.0, seed=0):
        out = []
        for item in items:
            known = self.answers[item["messages"][-1]["content"]]
            text, stopped = known.pop(0) if len(known) > 1 else known[0]
            out.append((text, self.tokenizer.encode(text, add_special_tokens=False).ids[:max_tokens], stopped))
        return out


class EngineBackend:
    def __init__(self, folder, program, extra):
        self.name = "moebius run" + "".join(" " + x for x in extra)
        self.folder, self.program, self.extra = folder, program, extra

    def answer(self, items, max_tokens, temperature=0.0, seed=0):
        with tempfile.TemporaryDirectory() as work:
            source, target = os.path.join(work, "in.jsonl"), os.path.join(work, "out.jsonl")
            with open(source, "w", encoding="utf-8") as f:
                for i, item in enumerate(items):
                    f.write(json.dumps({"id": str(i), "messages": item["messages"], "max_tokens": max_tokens,
                                        "temperature": temperature, "seed": seed + i}, ensure_ascii=False) + "\n")
            command = [self.program, "run", self.folder, "--input-file", source, "--output-file", target, *self.extra]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            with open(target, encoding="utf-8") as f:
                rows = {r["id"]: r for r in map(json.loads, f)}
        return [(rows[str(i)]["text"], rows[str(i)].get("token_ids", []), rows[str(i)]["finish_reason"] == "stop")
                for i in range(len(items))]
