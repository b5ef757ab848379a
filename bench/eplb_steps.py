#!/usr/bin/env python3
"""What moves of experts cost steps: step times of `moebius serve --step-log` with experts that stay and with random swaps
every few steps, in turn, `repeats` times, under the same load of many clients.

    bench/eplb_steps.py [--program build/release/moebius] [--repeats 3] [--seconds 15] [--interval 5] [MODEL AND FLAGS...]

Without MODEL the demo on 8 ranks with 40 slots. Prompts are token ids. Prints p50, p90, p99 and max of a step, decoding steps of
rank 0, and what was moved.
"""
import argparse
import json
import os
import pathlib
import tempfile
import time

from eplb_demo import ROOT, RANKS, Load, Server

DEMO = ["models/demo", *RANKS, "--enable-eplb", "--num-redundant-experts", "8"]


class Decoding(Load):
    def body(self, skill, i):
        return "/v1/completions", {"prompt": [100 + (i * 31 + j * 7) % 800 for j in range(16)], "max_tokens": 64,
                                   "temperature": 1, "seed": i, "ignore_eos": True}


def steps_of(program, model, config, seconds, concurrency):
    with tempfile.TemporaryDirectory() as folder:
        log = pathlib.Path(folder) / "steps"
        with Server(program, folder, [*model, "--eplb-config", json.dumps(config), "--step-log", str(log)]) as server:
            load = Decoding(server, concurrency)
            begin = time.time() + 2
            load.start("decoding")
            time.sleep(2 + seconds)
            end = time.time()
            load.stop()
            moves = json.loads(server.get("/moebius/stats?experts=0"))["balance"].get("moves")
        steps = [json.loads(line) for line in log.read_text().splitlines()]
    return [s["device_s"] * 1e3 for s in steps
            if s["dp_rank"] == 0 and begin < s["time"] < end and s["decode_tokens"] and not s["prefill_tokens"]], moves


def quantile(values, q):
    return sorted(values)[min(int(q * len(values)), len(values) - 1)]


def row(name, steps, moves):
    cells = [f"{quantile(steps, q):.2f}" for q in (0.5, 0.9, 0.99, 1)]
    moved = f"{moves['committed']} | {moves['dropped']} | {moves['slots']} | {moves['bytes'] / 2**20:.1f} | {moves['seconds']:.2f}" if moves else "| | | |"
    print(f"| {name} | {len(steps)} | {' | '.join(cells)} | {moved} |", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", default="build/release/moebius")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=15)
    parser.add_argument("--concurrency", type=int, default=16)
    parser.add_argument("--interval", type=int, default=5, help="steps between random moves")
    options, model = parser.parse_known_args()
    program, model = str((ROOT / options.program).resolve()), model or DEMO
    moving = {"random_moves": 1, "step_interval": options.interval, "layer_updates_per_iter": 6}
    configs = {"experts stay": {"layer_updates_per_iter": 0}, "random moves": moving}
    print(f"load before: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores", flush=True)
    print("| | steps | p50 ms | p90 | p99 | max | plans committed | dropped | slots | MiB fetched | s under way |\n| --- |" + " --: |" * 10, flush=True)
    all_steps = {name: [] for name in configs}
    for _ in range(options.repeats):
        for name, config in configs.items():
            steps, moves = steps_of(program, model, config, options.seconds, options.concurrency)
            all_steps[name] += steps
            row(name, steps, moves)
    for name, steps in all_steps.items():
        row(f"{name}, all runs", steps, None)


if __name__ == "__main__":
    main()
