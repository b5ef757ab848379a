#!/usr/bin/env python3
"""What HTTP costs: the same load on an engine alone (`moebius bench throughput`) and through `moebius serve`
(`moebius bench serve`, streamed, on the same machine), in turn, `repeats` times.

    bench/over_http.py [--program build/release/moebius] [--repeats 3] [--prompts 32] [MODEL AND FLAGS...]

Prints one line a pair, then the medians: output tokens a second of both, their ratio, and the CPU time of the server's
HTTP and text threads for a streamed token.
"""
import argparse
import json
import os
import pathlib
import re
import signal
import subprocess
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
MOE_3B = "bench/configs/moe-3b --load-format dummy --routing uniform --max-model-len 4096".split()
VOCAB = "1000"


def offline(program, model, prompts):
    with tempfile.NamedTemporaryFile(suffix=".json") as out:
        subprocess.run([program, "bench", "throughput", *model, "--num-prompts", prompts, "--input-len", "64",
                        "--output-len", "64", "--output-json", out.name],
                       check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=ROOT)
        return json.loads(pathlib.Path(out.name).read_text())["output_tokens_per_second"]


def thread_seconds(pid, prefixes):
    ticks = 0
    for stat in pathlib.Path(f"/proc/{pid}/task").glob("*/stat"):
        name, _, rest = stat.read_text().partition("(")[2].rpartition(")")
        if name.startswith(prefixes):
            fields = rest.split()
            ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def over_http(program, model, prompts):
    with tempfile.TemporaryDirectory() as folder:
        log = pathlib.Path(folder) / "log"
        with open(log, "w") as file:
            server = subprocess.Popen([program, "serve", *model, "--host", "127.0.0.1", "--port", "0"],
                                      stdout=file, stderr=subprocess.STDOUT, cwd=ROOT)
        try:
            while not (address := re.search(r"http://127\.0\.0\.1:\d+", log.read_text())):
                if server.poll() is not None:
                    raise RuntimeError(log.read_text())
                time.sleep(0.1)
            command = [program, "bench", "serve", "--base-url", address.group(0), "--backend", "openai",
                       "--dataset-name", "random", "--random-input-len", "64", "--random-output-len", "64",
                       "--random-vocab-size", VOCAB, "--num-prompts", prompts, "--ignore-eos", "--num-warmups", "0",
                       "--save-result", "--result-dir", folder, "--result-filename", "result.json"]
            run = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
            if run.returncode != 0:
                raise RuntimeError(run.stdout + run.stderr)
            result = json.loads((pathlib.Path(folder) / "result.json").read_text())
            if result["completed"] != int(prompts):
                raise RuntimeError(run.stdout)
            seconds = thread_seconds(server.pid, ("http", "text"))
            return result["output_throughput"], seconds / result["total_output_tokens"] * 1e6
        finally:
            server.send_signal(signal.SIGTERM)
            server.wait()


def median(values):
    return sorted(values)[len(values) // 2]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", default="build/release/moebius")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--prompts", default="32")
    options, model = parser.parse_known_args()
    program, model = str((ROOT / options.program).resolve()), model or MOE_3B
    pairs = []
    for _ in range(options.repeats):
        alone = offline(program, model, options.prompts)
        served, cpu = over_http(program, model, options.prompts)
        pairs.append((alone, served, cpu))
        print(f"engine alone {alone:.1f} tokens/s, over HTTP {served:.1f}: {served / alone:.3f}; {cpu:.1f} us of CPU a token",
              flush=True)
    print(f"medians: {median([p[0] for p in pairs]):.1f}, {median([p[1] for p in pairs]):.1f}; "
          f"ratio {median([p[1] / p[0] for p in pairs]):.3f}; {median([p[2] for p in pairs]):.1f} us of CPU a token")


if __name__ == "__main__":
    main()
