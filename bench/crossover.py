#!/usr/bin/env python3
"""Where layouts change places: measured beside planned.

    bench/crossover.py [--program build/release/moebius] [--passes 2] [--output-dir sweeps/crossover]

Runs plans/crossover.yaml `passes` times, a folder each, so that all layouts are measured in turn, asks `moebius plan
--device cpu` about the same model and load, and prints a table: output tokens a second of every layout at every
concurrency, what plan estimates, who leads (where all passes agree), and ratios, each of two figures of one pass.
--report-only prints what is in the folders already.
"""
import argparse
import json
import os
import pathlib
import subprocess
import sys

import yaml

ROOT = pathlib.Path(__file__).resolve().parent.parent
PLAN = ROOT / "plans/crossover.yaml"
PAIRS = [("TP2+EP", "DP2+EP"), ("DP2+EP", "DP2"), ("TP2+EP", "TP2")]


def measured(folder, layouts, loads):
    """{(layout, concurrency): tokens a second} of one pass."""
    rows = {}
    for line in (folder / "rows.jsonl").read_text().splitlines():
        row = json.loads(line)
        if row["status"] == "ok":
            result = row["result"] if isinstance(row["result"], dict) else json.loads(row["result"])
            rows[row["server"], loads[row["load"]]] = result["output_throughput"]
        else:
            print(f"{folder.name}: {row['cell']}: {row['reason']}", file=sys.stderr)
    return {(layout, c): rows.get((layout, c)) for layout in layouts for c in loads.values()}


def device_file(device, path):
    """The device as plan measured it once, so that all its answers are about the same one."""
    names = {"hbm_bytes_per_s": "hbm_bandwidth", "link_bytes_per_s": "link_bandwidth",
             "node_bytes_per_s": "node_bandwidth"}
    path.write_text(yaml.safe_dump({names.get(key, key): value for key, value in device.items()}))
    return path


def planned(program, plan, concurrency, device="cpu"):
    """{layout: tokens a second}, and the device."""
    server, load = plan["defaults"]["server-flags"], plan["defaults"]["load-flags"]
    model = plan["defaults"]["command"].split()[-1]
    command = [program, "plan", model, "--hf-overrides", server["hf-overrides"], "--device", device, "--gpus", "2",
               "--isl", load["random-input-len"], "--osl", load["random-output-len"], "--concurrency", concurrency,
               "--zipf", "0", "--objective", "throughput", "--format", "json"]
    out = subprocess.run([str(word) for word in command], capture_output=True, text=True, cwd=ROOT)
    if out.returncode != 0:
        raise RuntimeError(out.stdout + out.stderr)
    report = json.loads(out.stdout)
    return {row["layout"]: row["output_tokens_per_s"] for row in report["layouts"]}, report["device"]


def changes(leaders):
    """[(from, to, leader)] of a leader a concurrency."""
    bands = []
    for concurrency, leader in leaders:
        if bands and bands[-1][2] == leader:
            bands[-1][1] = concurrency
        else:
            bands.append([concurrency, concurrency, leader])
    return ", ".join(f"{leader} {first}" + (f" to {last}" if last != first else "") for first, last, leader in bands)


def table(header, rows):
    print("| " + " | ".join(header) + " |")
    print("| --: |" + " --: |" * (len(header) - 1))
    for row in rows:
        print("| " + " | ".join(str(cell) for cell in row) + " |")
    print()


def report(plan, passes, estimates, device, loads_avg):
    layouts = [server["name"] for server in plan["servers"]]
    concurrencies = [load["flags"]["max-concurrency"] for load in plan["loads"]]
    rows, said = [], []
    leaders = {"measured": [], "planned": []}
    for c in concurrencies:
        got = {layout: [p[layout, c] for p in passes if p[layout, c]] for layout in layouts}
        want = {layout: estimates[c].get(layout, 0) for layout in layouts}
        whole = all(p[name, c] for p in passes for name in layouts)
        each = {max(layouts, key=lambda name, p=p: p[name, c]) for p in passes} if whole else set()
        leaders["measured"].append((c, each.pop() if len(each) == 1 else "undecided"))
        leaders["planned"].append((c, max(want, key=want.get)))
        rows.append([c] + [f"{' / '.join(f'{value:.1f}' for value in got[name])} ({want[name]:.1f})" for name in layouts]
                    + [leaders["measured"][-1][1], leaders["planned"][-1][1]])
        ratios = []
        for a, b in PAIRS:
            each = [p[a, c] / p[b, c] for p in passes if p[a, c] and p[b, c]]
            got_ratio = " / ".join(f"{ratio:.2f}" for ratio in each)
            ratios.append(f"{got_ratio or '-'} ({want[a] / want[b] if want[b] else 0:.2f})")
        said.append([c] + ratios)
    print(f"Device as `moebius plan --device cpu` measured it: {device['title']}, {device['hbm_bytes_per_s'] / 1e9:.1f} GB/s, "
          f"{device['bf16_flops'] / 1e12:.2f} TFLOP/s a rank. Load averages before the passes: {', '.join(loads_avg)}.\n")
    print("Output tokens a second, measured, a figure a pass (planned):\n")
    table(["requests in flight"] + layouts + ["leads, measured", "leads, planned"], rows)
    print("Ratios, one a pass (planned):\n")
    table(["requests in flight"] + [f"{a} / {b}" for a, b in PAIRS], said)
    for what, bands in leaders.items():
        print(f"Leads, {what}: {changes(bands)}.")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", default="build/release/moebius")
    parser.add_argument("--passes", type=int, default=2)
    parser.add_argument("--output-dir", default="sweeps/crossover")
    parser.add_argument("--report-only", action="store_true")
    options = parser.parse_args()
    plan = yaml.safe_load(PLAN.read_text())
    loads = {load["name"]: load["flags"]["max-concurrency"] for load in plan["loads"]}
    layouts = [server["name"] for server in plan["servers"]]
    passes, loads_avg = [], []
    for i in range(1, options.passes + 1):
        folder = ROOT / options.output_dir / str(i)
        folder.mkdir(parents=True, exist_ok=True)
        if not options.report_only:
            (folder / "load").write_text(f"{os.getloadavg()[0]:.1f}")
            subprocess.run([options.program, "bench", "sweep", str(PLAN), "--output-dir", str(folder)], cwd=ROOT,
                           stdout=subprocess.DEVNULL)
        loads_avg.append((folder / "load").read_text())
        passes.append(measured(folder, layouts, loads))
    _, device = planned(options.program, plan, 1)
    path = device_file(device, ROOT / options.output_dir / "device.yaml")
    estimates = {c: planned(options.program, plan, c, path)[0] for c in loads.values()}
    report(plan, passes, estimates, device, loads_avg)


if __name__ == "__main__":
    main()
