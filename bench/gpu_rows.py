#!/usr/bin/env python3
"""Tables of what tools/cuda_ranks.sh measured: bench/gpu_rows.py OUT > rows.md

OUT holds a JSON file of `moebius bench latency` for each cell, named layout-MODEL-LAYOUT-BATCH, slice-epN-BATCH-ROUTING
or balance-on|off, and exchange.jsonl of `moebius bench exchange`.
"""
import json
import pathlib
import sys


def read(folder):
    return {path.stem: json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))}


def table(head, rows):
    if not rows:
        return
    print("| " + " | ".join(head) + " |")
    print("|" + " --- |" * len(head))
    for row in rows:
        print("| " + " | ".join(str(cell) for cell in row) + " |")
    print()


def figures(cell):
    per_gpu = cell["decode_tokens_per_second"] / cell["ranks"]
    busy = [gpu["sm_percent"] for gpu in cell.get("gpus") or []]
    watts = [gpu["watts"] for gpu in cell.get("gpus") or []]
    sent = [gpu["nvlink_bytes_per_second"] / 1e9 for gpu in cell.get("gpus") or []]
    return [
        f"{cell['ttft_ms']['p50']:.0f}",
        f"{cell['tpot_ms']['p50']:.2f}",
        f"{1e3 / cell['tpot_ms']['p50']:.1f}",
        f"{per_gpu:.0f}",
        f"{100 * cell['bandwidth_share']:.0f} %",
        f"{max(busy, default=0):.0f} %",
        f"{max(watts, default=0):.0f}",
        f"{max(sent, default=0):.1f}",
    ]


HEAD = ["TTFT p50 ms", "TPOT p50 ms", "tokens/s/user", "tokens/s/GPU", "of the copy rate", "kernels ran", "W", "NVLink GB/s"]


def layouts(cells):
    rows = []
    for name, cell in cells.items():
        if name.startswith("layout-"):
            _, model, rest = name.split("-", 2)
            layout, batch = rest.rsplit("-", 1)
            rows.append(((model, int(batch), layout), [model, batch, layout] + figures(cell)))
    table(["model", "requests", "layout"] + HEAD, [row for _, row in sorted(rows)])


def slices(cells):
    rows, user = [], {}
    for name, cell in cells.items():
        if name.startswith("slice-"):
            _, ep, batch, routing = name.split("-", 3)
            rows.append(((routing, int(batch), int(ep[2:])), [ep.upper(), batch, routing] + figures(cell)))
            user[ep, batch, routing] = cell["decode_tokens_per_second"] / cell["ranks"]
    table(["slice of", "requests a GPU", "routing"] + HEAD, [row for _, row in sorted(rows)])
    for (ep, batch, routing), rate in sorted(user.items()):
        if ep == "ep32" and ("ep8", batch, routing) in user:
            print(f"EP32 / EP8 at {batch} requests a GPU, {routing}: {rate / user['ep8', batch, routing]:.2f}\n")


def balance(cells):
    rows = [[name] + figures(cell) for name, cell in cells.items() if name.startswith("balance-")]
    table(["EPLB"] + HEAD, rows)


def exchange(folder):
    path = folder / "exchange.jsonl"
    if not path.exists():
        return
    rows = [json.loads(line) for line in path.read_text().splitlines() if line]
    keys = list(dict.fromkeys(key for row in rows if row.get("case") != "all_reduce" for key in row))
    table(keys, [[row.get(key, "") for key in keys] for row in rows if row.get("case") != "all_reduce"])
    reduces = [row for row in rows if row.get("case") == "all_reduce"]
    if reduces:
        table(list(reduces[0]), [list(row.values()) for row in reduces])


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    folder = pathlib.Path(sys.argv[1])
    cells = read(folder)
    exchange(folder)
    layouts(cells)
    slices(cells)
    balance(cells)


if __name__ == "__main__":
    main()
