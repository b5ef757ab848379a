#!/usr/bin/env python3
"""Tables of what tools/cuda_ranks.sh measured: bench/gpu_rows.py OUT [--plot curve.svg] > rows.md

OUT holds a JSON file of `moebius bench latency` for each cell, named layout-MODEL-LAYOUT-BATCH, slice-epN-BATCH-ROUTING
or balance-on|off, and exchange.jsonl of `moebius bench exchange`. --plot draws the slices: tokens/s/user against tokens/s/GPU.
A step's time is the median time between tokens (ITL): full batches mostly, prefill of others left out.
"""
import argparse
import json
import pathlib


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


def per_user(cell):
    return 1e3 / cell["itl_ms"]["p50"]


def per_gpu(cell):
    return cell["batch_size"] / cell["ranks"] * per_user(cell)


def figures(cell):
    busy = [gpu["sm_percent"] for gpu in cell.get("gpus") or []]
    watts = [gpu["watts"] for gpu in cell.get("gpus") or []]
    sent = [gpu["nvlink_bytes_per_second"] / 1e9 for gpu in cell.get("gpus") or []]
    return [
        f"{cell['ttft_ms']['p50']:.0f}",
        f"{cell['tpot_ms']['p50']:.2f}",
        f"{cell['itl_ms']['p50']:.2f}",
        f"{per_user(cell):.1f}",
        f"{per_gpu(cell):.0f}",
        f"{100 * cell['bandwidth_share']:.0f} %",
        f"{max(busy, default=0):.0f} %",
        f"{max(watts, default=0):.0f}",
        f"{max(sent, default=0):.1f}",
    ]


HEAD = ["TTFT p50 ms", "TPOT p50 ms", "ITL p50 ms", "tokens/s/user", "tokens/s/GPU", "of the copy rate", "kernels ran", "W", "NVLink GB/s"]


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
            user[ep, batch, routing] = per_gpu(cell)
    table(["slice of", "requests a GPU", "routing"] + HEAD, [row for _, row in sorted(rows)])
    for (ep, batch, routing), rate in sorted(user.items()):
        if ep == "ep32" and ("ep8", batch, routing) in user:
            print(f"EP32 / EP8 at {batch} requests a GPU, {routing}: {rate / user['ep8', batch, routing]:.2f}\n")
    found = curves(cells)
    for routing in sorted({routing for _, routing in found}):
        if (8, routing) not in found or (32, routing) not in found:
            continue
        ratios = [f"{1e3 / speed:.1f} ms: {rate_at(found[32, routing], speed) / gpu:.2f}"
                  for speed, gpu in found[8, routing] if rate_at(found[32, routing], speed)]
        if ratios:
            print(f"EP32 / EP8 at equal time per token, {routing} (between points of EP32, straight lines): {', '.join(ratios)}\n")


def rate_at(points, speed):
    """tokens/s/GPU where a user has `speed` tokens/s, on straight lines between points; None outside of them."""
    for (fast, low), (slow, high) in zip(points, points[1:]):
        if slow <= speed <= fast:
            return low + (high - low) * (fast - speed) / (fast - slow)
    return None


def curves(cells):
    """(EP, routing) -> points of (tokens/s/user, tokens/s/GPU), by batch; slices of the usual context alone."""
    found = {}
    for name, cell in cells.items():
        if name.startswith("slice-") and not name.endswith("2k"):
            _, ep, batch, routing = name.split("-", 3)
            found.setdefault((int(ep[2:]), routing), []).append((int(batch), per_user(cell), per_gpu(cell)))
    return {key: [(user, gpu) for _, user, gpu in sorted(points)] for key, points in sorted(found.items())}


def draw(found):
    width, height, left, top, right, bottom = 920, 480, 72, 44, 16, 52
    colours = dict(zip(sorted({ep for ep, _ in found}), ("#b3261e", "#b58900", "#2f6fab", "#2e7d32")))
    most_user = max(user for points in found.values() for user, _ in points) * 1.05
    most_gpu = max(gpu for points in found.values() for _, gpu in points) * 1.08
    x = lambda v: left + v / most_user * (width - left - right)
    y = lambda v: height - bottom - v / most_gpu * (height - top - bottom)
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="13">',
           f'<rect width="{width}" height="{height}" fill="#fff"/>']
    for gpu in range(0, int(most_gpu) + 1, 1000):
        out.append(f'<line x1="{left}" x2="{width - right}" y1="{y(gpu):.1f}" y2="{y(gpu):.1f}" stroke="#e6eaee"/>')
        out.append(f'<text x="{left - 8}" y="{y(gpu) + 4:.1f}" text-anchor="end" fill="#333">{gpu}</text>')
    for user in range(0, int(most_user) + 1, 10):
        out.append(f'<text x="{x(user):.1f}" y="{height - bottom + 18}" text-anchor="middle" fill="#333">{user}</text>')
    out.append(f'<text x="{(left + width - right) / 2}" y="{height - 12}" text-anchor="middle" fill="#333">tokens/s a user</text>')
    out.append(f'<text transform="translate(18 {height / 2}) rotate(-90)" text-anchor="middle" fill="#333">tokens/s a GPU</text>')
    dashes = dict(zip(sorted({routing for _, routing in found} - {"uniform"}), ("5 4", "1 4", "9 3 2 3")))
    for i, ((ep, routing), points) in enumerate(found.items()):
        dash = f' stroke-dasharray="{dashes[routing]}"' if routing in dashes else ""
        style = f'stroke="{colours[ep]}" stroke-width="2"{dash}'
        line = " ".join(f"{x(user):.1f},{y(gpu):.1f}" for user, gpu in points)
        out.append(f'<polyline points="{line}" fill="none" {style}/>')
        for user, gpu in points:
            fill = colours[ep] if routing == "uniform" else "#fff"
            out.append(f'<circle cx="{x(user):.1f}" cy="{y(gpu):.1f}" r="3.5" fill="{fill}" stroke="{colours[ep]}"/>')
        at, row = left + 8 + i % 4 * 200, 16 + i // 4 * 18
        out.append(f'<line x1="{at}" x2="{at + 26}" y1="{row}" y2="{row}" {style}/>')
        out.append(f'<text x="{at + 33}" y="{row + 5}" fill="#111">EP{ep}, {routing}</text>')
    return "\n".join(out) + "\n</svg>\n"


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
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--plot", type=pathlib.Path)
    flags = parser.parse_args()
    folder = flags.out
    cells = read(folder)
    if flags.plot is not None and curves(cells):
        flags.plot.write_text(draw(curves(cells)))
    exchange(folder)
    layouts(cells)
    slices(cells)
    balance(cells)


if __name__ == "__main__":
    main()
