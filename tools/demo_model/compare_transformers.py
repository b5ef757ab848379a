"""Greedy answers of transformers on the de-quantised weights beside those of the engine: equal, or where they part.

    python compare_transformers.py --model models/demo --engine build/release/moebius

Both compute in float32. Prompts: the demo prompts and a few more, through the chat template that ships with the checkpoint.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile

import torch
import transformers
from safetensors.torch import save_file

import checkpoint

MORE = ["What is wide expert parallelism?", "What is 96 divided by 12?", "Write a C++ function that checks whether a number is prime.",
        "Write a Chinese poem about autumn."]


def dequantised_folder(model, out):
    """A copy of the checkpoint in float32, without the MTP layer, which transformers does not run."""
    os.makedirs(out)
    with open(f"{model}/config.json", encoding="utf-8") as f:
        config = json.load(f)
    del config["quantization_config"]
    config["dtype"] = "float32"
    extra = f"model.layers.{config['num_hidden_layers']}."
    with open(f"{out}/config.json", "w", encoding="utf-8") as f:
        json.dump(config, f)
    tensors = {k: v.float().contiguous() for k, v in checkpoint.read_tensors(model).items() if not k.startswith(extra)}
    save_file(tensors, f"{out}/model.safetensors", metadata={"format": "pt"})
    for name in ("tokenizer.json", "tokenizer_config.json", "generation_config.json"):
        shutil.copy(f"{model}/{name}", out)


def by_transformers(folder, prompts, max_tokens):
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    texts = []
    for p in prompts:
        ids = tokenizer.apply_chat_template([{"role": "user", "content": p}], add_generation_prompt=True,
                                            return_tensors="pt", return_dict=True)["input_ids"]
        with torch.no_grad():
            out = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=max_tokens, do_sample=False)
        texts.append(tokenizer.decode(out[0, ids.shape[1]:], skip_special_tokens=True))
    return texts


def by_engine(program, model, prompts, max_tokens, work):
    source, target = f"{work}/in.jsonl", f"{work}/out.jsonl"
    with open(source, "w", encoding="utf-8") as f:
        for i, p in enumerate(prompts):
            f.write(json.dumps({"id": str(i), "messages": [{"role": "user", "content": p}], "max_tokens": max_tokens,
                                "temperature": 0}) + "\n")
    subprocess.run([program, "run", model, "--input-file", source, "--output-file", target, "--dtype", "float32"], check=True,
                   stdout=subprocess.DEVNULL)
    with open(target, encoding="utf-8") as f:
        rows = {r["id"]: r["text"] for r in map(json.loads, f)}
    return [rows[str(i)] for i in range(len(prompts))]


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--model", required=True)
    p.add_argument("--engine", help="path of the moebius program; without it only transformers' answers are printed")
    p.add_argument("--max-tokens", type=int, default=200)
    args = p.parse_args()
    with open(f"{args.model}/demo_prompts.txt", encoding="utf-8") as f:
        prompts = [line.strip() for line in f if line.strip()] + MORE
    with tempfile.TemporaryDirectory() as work:
        dequantised_folder(args.model, f"{work}/model")
        expected = by_transformers(f"{work}/model", prompts, args.max_tokens)
        found = by_engine(args.engine, args.model, prompts, args.max_tokens, work) if args.engine else expected
    different = 0
    for prompt, a, b in zip(prompts, expected, found):
        print(("equal    " if a == b else "DIFFERENT") + f"  {prompt}")
        if not args.engine:
            print(a + "\n")
        if a != b:
            different += 1
            print(f"  transformers: {a!r}\n  moebius:      {b!r}")
    print(f"{len(prompts) - different} of {len(prompts)} answers equal")
    sys.exit(1 if different else 0)


if __name__ == "__main__":
    main()
