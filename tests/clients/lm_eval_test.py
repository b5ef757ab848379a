"""lm-eval's local-completions on a small task: log likelihoods (echo, prompt token ids) and generation, with the
server's own tokeniser (/tokenizer_info, /tokenize). No warning about the server may come from the client."""
import json
import pathlib
import random
import subprocess

import pytest

from server import ROOT

TASKS = pathlib.Path(__file__).parent / "lm_eval_tasks"
NUM_SUMS = 24


def write_sums(path):
    rng = random.Random(7)
    with open(path, "w") as file:
        for _ in range(NUM_SUMS):
            a, b = rng.randint(2, 60), rng.randint(2, 39)
            wrong = rng.sample([d for d in range(-9, 10) if d != 0 and a + b + d > 0], 3)
            numbers = [a + b] + [a + b + d for d in wrong]
            rng.shuffle(numbers)
            file.write(json.dumps({
                "question": f"What is {a} + {b}?",
                "choices": [f"{a} + {b} = {number}." for number in numbers],
                "answer": numbers.index(a + b),
                "number": str(a + b),
            }) + "\n")


@pytest.mark.parametrize("concurrency, batch_size", [(1, 4), (8, 1)])
def test_sums(server, tmp_path, concurrency, batch_size):
    write_sums(tmp_path / "sums.jsonl")
    model = json.loads(server.get("/v1/models")[1])["data"][0]["id"]
    arguments = f"model={model},base_url={server.url}/v1/completions,num_concurrent={concurrency}," \
                "tokenizer_backend=remote,tokenized_requests=True,max_length=1024"
    command = [str(ROOT / "build/clients/lm_eval/bin/lm_eval"), "run", "--model", "local-completions",
               "--model_args", arguments, "--include_path", str(TASKS), "--output_path", str(tmp_path / "out"),
               "--tasks", "moebius_sums_choice,moebius_sums_generate", "--batch_size", str(batch_size)]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=600)
    assert run.returncode == 0, run.stdout + run.stderr
    (result,) = (tmp_path / "out").rglob("results_*.json")
    results = json.loads(result.read_text())["results"]
    assert results["moebius_sums_choice"]["acc,none"] >= 0.9
    assert results["moebius_sums_generate"]["exact_match,number"] >= 0.9
    about_server = [line for line in run.stderr.splitlines()
                    if ("WARNING" in line or "ERROR" in line) and "api_models" in line
                    and "Batch size > 1 detected" not in line]  # said of every server
    assert not about_server, about_server
