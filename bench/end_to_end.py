#!/usr/bin/env python3
"""Latency and throughput of whole models on this machine, as rows for bench/results/.

    bench/end_to_end.py [--program build/release/moebius] [--repeats 3] [--only demo] > rows.md

Every benchmark is a process of its own, `repeats` times, the list run through again and again so that a slow minute of
the machine does not hit one row alone. Rows show medians, and the lowest and highest rate. Tokens a second: of decoding
alone for latency (all requests past their first token), of the whole run for throughput.
"""
import argparse
import json
import pathlib
import shlex
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
DEMO = "models/demo"
MOE_3B = "bench/configs/moe-3b --load-format dummy --routing uniform --max-model-len 4096"
BENCHMARKS = {
    "demo, batch 1": f"latency {DEMO} --batch-size 1 --input-len 32 --output-len 256",
    "demo, batch 8": f"latency {DEMO} --batch-size 8 --input-len 32 --output-len 256",
    "demo, 64 prompts": f"throughput {DEMO} --num-prompts 64 --input-len 128 --output-len 128",
    "dummy 3 B MoE, batch 1": f"latency {MOE_3B} --batch-size 1 --input-len 32 --output-len 64 --num-iters 3 --num-iters-warmup 1",
    "dummy 3 B MoE, batch 8": f"latency {MOE_3B} --batch-size 8 --input-len 32 --output-len 64 --num-iters 2 --num-iters-warmup 1",
    "dummy 3 B MoE, prefill 512": f"latency {MOE_3B} --batch-size 1 --input-len 512 --output-len 2 --num-iters 2 --num-iters-warmup 1",
    "dummy 3 B MoE, 32 prompts": f"throughput {MOE_3B} --num-prompts 32 --input-len 64 --output-len 64",
}


def run_once(program, arguments):
    with tempfile.NamedTemporaryFile(suffix=".json") as out:
        command = [program, "bench", *shlex.split(arguments), "--output-json", out.name]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=ROOT)
        return json.loads(pathlib.Path(out.name).read_text())


def rate(report):
    return report.get("decode_tokens_per_second", report["output_tokens_per_second"])


def median(values):
    return sorted(values)[len(values) // 2]


def row(name, arguments, reports):
    rates = [rate(report) for report in reports]
    typical = sorted(reports, key=rate)[len(reports) // 2]
    latency = "bandwidth_share" in typical
    cells = [
        name,
        f"`moebius bench {arguments}`",
        f"{typical['ttft_ms']['p50']:.1f}",
        f"{typical['tpot_ms']['p50']:.2f}",
        f"{typical['itl_ms']['p99']:.2f}",
        f"{median(rates):.1f}",
        f"{min(rates):.1f} - {max(rates):.1f}",
        f"{typical['total_tokens_per_second']:.1f}",
        f"{typical['bytes_per_decode_step'] / 1e6:.0f}" if latency else "",
        f"{median([r['bandwidth_bytes_per_second'] for r in reports]) / 1e9:.1f}" if latency else "",
        f"{median([r['bandwidth_share'] for r in reports]) * 100:.0f} %" if latency else "",
    ]
    return "| " + " | ".join(cells) + " |"


HEADER = """| what | command | TTFT ms | TPOT ms | ITL p99 ms | tokens/s | lowest - highest | with prompts | MB a step | GB/s streamed | share |
| --- | --- | --: | --: | --: | --: | --: | --: | --: | --: | --: |"""


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", default=str(ROOT / "build/release/moebius"))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--only", default="", help="part of a benchmark's name")
    options = parser.parse_args()

    chosen = {name: arguments for name, arguments in BENCHMARKS.items() if options.only in name}
    reports = {name: [] for name in chosen}
    for repeat in range(options.repeats):
        for name, arguments in chosen.items():
            reports[name].append(run_once(options.program, arguments))
            print(f"{repeat + 1}/{options.repeats} {name}: {rate(reports[name][-1]):.1f} tokens/s", file=sys.stderr)

    print(HEADER)
    for name, arguments in chosen.items():
        print(row(name, arguments, reports[name]))


if __name__ == "__main__":
    main()
