#!/usr/bin/env python3
"""What EPLB buys: a load that moves from arithmetic to poems to code on the demo over 8 ranks, without EPLB, with a static
placement planned from another skill (stories), and online. Each second the server's counts and placement are asked for.

    bench/eplb_demo.py [--program build/release/moebius] [--seconds 25] [--ranks 8] [--eplb-config JSON]
                       [--plot docs/eplb-imbalance.svg] [MORE FLAGS OF serve, as --device cuda]

Draws the imbalance by rank (max / mean - 1, mean of the layers) over time and prints tables of it. --eplb-config: of the online run.
"""
import argparse
import http.client
import json
import os
import pathlib
import re
import signal
import subprocess
import tempfile
import threading
import time
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parent.parent
NUM_RANKS = 8
NUM_SPARE = 8  # slots beyond one an expert
RANKS = f"--data-parallel-size {NUM_RANKS} --enable-expert-parallel --max-model-len 512".split()  # of eplb_steps.py, too
SKILLS = ["arithmetic", "poems", "code"]  # in this order; "stories" is the static placement's
MODES = ["no EPLB", "static", "online"]
COLOURS = {"no EPLB": "#c0392b", "static": "#b8860b", "online": "#1f6fb2"}

THINGS = "moon mountain wind river flower snow rain autumn spring night wine bird cloud willow boat friend temple bamboo".split()
TASKS = ["checks whether a number is prime", "reverses a list", "returns the largest element of a list",
         "counts the even numbers in a list", "computes the factorial of a number", "sorts a list with bubble sort",
         "returns the mean of a list of numbers", "removes duplicates from a list", "checks whether a list is sorted"]
HEROES = ["fox", "baker", "sailor", "young owl", "miller", "queen", "gardener", "bear"]


def prompt(skill, i):
    if skill == "arithmetic":
        a, b = 11 + i * 37 % 88, 12 + i * 53 % 87
        return f"What is {a} {'+-*'[i % 3]} {b}?"
    if skill == "poems":
        return f"Write a {['five', 'seven'][i % 2]}-character Chinese poem about the {THINGS[i % len(THINGS)]}."
    if skill == "code":
        return f"Write a {['Python', 'C++'][i // len(TASKS) % 2]} function that {TASKS[i % len(TASKS)]}."
    return f"Tell me a short story about a {HEROES[i % len(HEROES)]} who meets a {HEROES[(i * 3 + 1) % len(HEROES)]}."


class Server:
    def __init__(self, program, folder, flags):
        self.log = pathlib.Path(folder) / "log"
        with open(self.log, "w") as file:
            self.process = subprocess.Popen([program, "serve", *flags, "--host", "127.0.0.1", "--port", "0"],
                                            stdout=file, stderr=subprocess.STDOUT, cwd=ROOT)
        while not (found := re.search(r"http://(127\.0\.0\.1:\d+)", self.log.read_text())):
            if self.process.poll() is not None:
                raise RuntimeError(self.log.read_text())
            time.sleep(0.1)
        self.address = found.group(1)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait()

    def get(self, path):
        with urllib.request.urlopen(f"http://{self.address}{path}") as answer:
            return answer.read().decode()


class Load:
    """So many clients that always have one request under way, of one skill at a time."""

    def __init__(self, server, concurrency):
        self.server, self.skill, self.next, self.tokens = server, None, 0, 0
        self.lock, self.error = threading.Lock(), None
        self.threads = [threading.Thread(target=self.ask) for _ in range(concurrency)]

    def start(self, skill):
        with self.lock:
            first, self.skill, self.next = self.skill is None, skill, 0
        if first:
            for thread in self.threads:
                thread.start()

    def stop(self):
        with self.lock:
            self.skill = None
        for thread in self.threads:
            thread.join()
        if self.error:
            raise RuntimeError(self.error)

    def body(self, skill, i):
        return "/v1/chat/completions", {"messages": [{"role": "user", "content": prompt(skill, i)}], "max_tokens": 64,
                                        "temperature": 0.5, "seed": i}

    def ask(self):
        connection = http.client.HTTPConnection(self.server.address)
        while True:
            with self.lock:
                if self.skill is None or self.error:
                    return
                skill, i = self.skill, self.next
                self.next += 1
            path, body = self.body(skill, i)
            try:
                connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
                answer = connection.getresponse()
                text = answer.read().decode()
                if answer.status != 200:
                    raise RuntimeError(text)
                with self.lock:
                    self.tokens += json.loads(text)["usage"]["completion_tokens"]
            except Exception as error:  # told by stop()
                self.error = f"{skill} {i}: {error!r}"
                return


class Sample:
    """Tokens of every expert by layer, the placement, and what each rank has computed, at one time."""

    def __init__(self, server):
        counts = json.loads(server.get("/eplb/counts"))
        self.time = time.monotonic()
        self.experts = [[sum(tokens) for tokens in zip(*(rank[phase][layer] for rank in counts["ranks"] for phase in ("decode", "prefill")))]
                        for layer in range(len(counts["layers"]))]
        in_order = list(range(counts["num_experts"]))
        self.slots = counts["slots"] or [in_order] * len(self.experts)
        text = server.get("/metrics")
        rows = re.findall(r'^moebius:rank_expert_tokens_total\{[^}]*\brank="(\d+)"[^}]*\} (\S+)', text, re.M)
        self.ranks = [float(value) for _, value in sorted(rows, key=lambda row: int(row[0]))]


def imbalance(tokens):
    return max(tokens) * len(tokens) / sum(tokens) - 1 if sum(tokens) else 0


def imbalance_between(before, after):
    """By rank, mean of the layers, with the placement that the interval began with; copies share evenly."""
    sums = 0
    for old, new, slots in zip(before.experts, after.experts, before.slots):
        each, ranks = len(slots) // NUM_RANKS, [0.0] * NUM_RANKS
        for slot, expert in enumerate(slots):
            if expert >= 0:
                ranks[slot // each] += (new[expert] - old[expert]) / slots.count(expert)
        sums += imbalance(ranks)
    return sums / len(before.slots)


def run_phases(server, seconds, concurrency):
    """Samples by phase; tokens drawn a second; what was moved."""
    load = Load(server, concurrency)
    phases, begin = [], time.monotonic()
    for skill in SKILLS:
        load.start(skill)
        samples, end = [Sample(server)], time.monotonic() + seconds
        while time.monotonic() < end:
            time.sleep(min(1, max(0, end - time.monotonic())))
            samples.append(Sample(server))
        phases.append(samples)
    rate = load.tokens / (time.monotonic() - begin)
    load.stop()
    moves = json.loads(server.get("/moebius/stats?experts=0"))["balance"].get("moves")
    return {"begin": begin, "phases": phases, "rate": rate, "moves": moves}


def plan_from_stories(program, server, folder, concurrency):
    load = Load(server, concurrency)
    load.start("stories")
    time.sleep(2)
    subprocess.run([program, "eplb", "record", "--base-url", f"http://{server.address}", "--output", f"{folder}/stories",
                    "--seconds", "12", "--interval", "1"], check=True, stdout=subprocess.DEVNULL)
    load.stop()
    subprocess.run([program, "eplb", "plan", f"{folder}/stories", "--num-slots", str(32 + NUM_SPARE), "--ranks", str(NUM_RANKS),
                    "--output", f"{folder}/stories.yaml"], check=True, stdout=subprocess.DEVNULL)


def curve(run):
    """(seconds since the begin, imbalance) of each interval."""
    return [(after.time - run["begin"], imbalance_between(before, after))
            for samples in run["phases"] for before, after in zip(samples, samples[1:])]


def draw(runs, seconds):
    width, height, left, top, right, bottom = 920, 380, 64, 44, 16, 48
    curves = {mode: curve(run) for mode, run in runs.items()}
    most = max(value for points in curves.values() for _, value in points) * 1.15
    total = seconds * len(SKILLS)
    x = lambda t: left + min(t / total, 1) * (width - left - right)
    y = lambda v: height - bottom - v / most * (height - top - bottom)
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="13">',
           f'<rect width="{width}" height="{height}" fill="#fff"/>']
    for i, skill in enumerate(SKILLS):
        a, b = x(i * seconds), x((i + 1) * seconds)
        out.append(f'<rect x="{a:.1f}" y="{top}" width="{b - a:.1f}" height="{height - top - bottom}" fill="{"#f3f5f7" if i % 2 == 0 else "#e6eaee"}"/>')
        out.append(f'<text x="{(a + b) / 2:.1f}" y="{top + 17}" text-anchor="middle" fill="#555">{skill}</text>')
    step = next(s for s in (0.05, 0.1, 0.2, 0.5, 1) if most / s <= 8)
    for i in range(int(most / step) + 1):
        out.append(f'<line x1="{left}" x2="{width - right}" y1="{y(i * step):.1f}" y2="{y(i * step):.1f}" stroke="#fff"/>')
        out.append(f'<text x="{left - 8}" y="{y(i * step) + 4:.1f}" text-anchor="end" fill="#333">{i * step:.2g}</text>')
    for t in range(0, int(total) + 1, 10):
        out.append(f'<text x="{x(t):.1f}" y="{height - bottom + 18}" text-anchor="middle" fill="#333">{t}</text>')
    out.append(f'<text x="{(left + width - right) / 2}" y="{height - 10}" text-anchor="middle" fill="#333">seconds</text>')
    out.append(f'<text transform="translate(16 {height / 2}) rotate(-90)" text-anchor="middle" fill="#333">imbalance by rank (max / mean - 1)</text>')
    for i, (mode, points) in enumerate(curves.items()):
        line = " ".join(f"{x(t):.1f},{y(v):.1f}" for t, v in points)
        out.append(f'<polyline points="{line}" fill="none" stroke="{COLOURS[mode]}" stroke-width="2"/>')
        at = left + 8 + i * 150
        out.append(f'<line x1="{at}" x2="{at + 26}" y1="22" y2="22" stroke="{COLOURS[mode]}" stroke-width="3"/>')
        out.append(f'<text x="{at + 33}" y="27" fill="#111">{mode}</text>')
    return "\n".join(out) + "\n</svg>\n"


def mean(values):
    return sum(values) / len(values)


def report(runs):
    """Of a phase, all of it and its second half, when what online planning can do about it is done."""
    print(f"| imbalance | {' | '.join(f'{s}, second half' if half else s for s in SKILLS for half in (0, 1))} | tokens/s |")
    print("| --- |" + " --: |" * (2 * len(SKILLS) + 1))
    for mode, run in runs.items():
        cells = []
        for samples in run["phases"]:
            values = [imbalance_between(a, b) for a, b in zip(samples, samples[1:])]
            cells += [f"{mean(values):.3f}", f"{mean(values[len(values) // 2:]):.3f}"]
        print(f"| {mode} | {' | '.join(cells)} | {run['rate']:.0f} |")
    print("\n| tokens of ranks, thousands, all layers (measured) | skill |" + "".join(f" {r} |" for r in range(NUM_RANKS)) + " imbalance |")
    print("| --- | --- |" + " --: |" * (NUM_RANKS + 1))
    for mode, run in runs.items():
        for skill, samples in zip(SKILLS, run["phases"]):
            tokens = [b - a for a, b in zip(samples[len(samples) // 2].ranks, samples[-1].ranks)]
            print(f"| {mode} | {skill}, second half | {' | '.join(f'{t / 1000:.1f}' for t in tokens)} | {imbalance(tokens):.3f} |")
    for mode, run in runs.items():
        if run["moves"]:
            moves = run["moves"]
            print(f"\n{mode}: {moves['committed']} plans committed, {moves['dropped']} dropped, {moves['slots']} slots, "
                  f"{moves['bytes'] / 2**20:.1f} MiB fetched, under way {moves['seconds']:.2f} s")


def main():
    global NUM_RANKS
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", default="build/release/moebius")
    parser.add_argument("--seconds", type=float, default=25, help="of a skill")
    parser.add_argument("--concurrency", type=int, default=16)
    parser.add_argument("--eplb-config", default="{}")
    parser.add_argument("--modes", default=",".join(MODES))
    parser.add_argument("--plot", default="docs/eplb-imbalance.svg")
    parser.add_argument("--ranks", type=int, default=NUM_RANKS)
    options, more = parser.parse_known_args()
    NUM_RANKS = options.ranks
    program, runs = str((ROOT / options.program).resolve()), {}
    print(f"load before: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        base = ["models/demo", *RANKS, "--data-parallel-size", str(NUM_RANKS), *more]
        flags = {"no EPLB": base, "static": [*base, "--moe-config", json.dumps({"load_balancer": f"{folder}/stories.yaml"})],
                 "online": [*base, "--enable-eplb", "--num-redundant-experts", str(NUM_SPARE), "--eplb-config", options.eplb_config]}
        if "static" in options.modes:
            with Server(program, folder, base) as server:
                plan_from_stories(program, server, folder, options.concurrency)
        for mode in options.modes.split(","):
            with Server(program, folder, flags[mode]) as server:
                runs[mode] = run_phases(server, options.seconds, options.concurrency)
    pathlib.Path(ROOT / options.plot).write_text(draw(runs, options.seconds))
    report(runs)


if __name__ == "__main__":
    main()
