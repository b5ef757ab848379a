"""Times torch._grouped_mm (bf16) on the rows of the grouped GEMM benchmark: 32 experts, N 4096, K 7168.

Graph replays on two sets of weights, each far larger than the L2; sampled rows checked against float64.
Usage: python3 torch_grouped_mm.py
"""

import statistics

import torch

GROUPS, N, K, SETS = 32, 4096, 7168, 2


def time_graph(body, launches: int, replays: int = 9) -> float:
    """Median microseconds of one of `launches` calls of body(i), captured in one graph."""
    body(0)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for i in range(launches):
            body(i)
    times = []
    for _ in range(replays + 1):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        graph.replay()
        end.record()
        end.synchronize()
        times.append(begin.elapsed_time(end) * 1000 / launches)
    return statistics.median(times[1:])


def main() -> None:
    torch.manual_seed(0)
    weights = [torch.randn(GROUPS, N, K, device="cuda", dtype=torch.bfloat16) * 0.5 for _ in range(SETS)]
    for count in (1, 16, 64, 256, 1024):
        total = GROUPS * count
        rows = [torch.randn(total, K, device="cuda", dtype=torch.bfloat16) * 0.5 for _ in range(SETS)]
        offsets = torch.arange(1, GROUPS + 1, device="cuda", dtype=torch.int32) * count

        def call(i: int) -> torch.Tensor:
            return torch._grouped_mm(rows[i % SETS], weights[i % SETS].transpose(1, 2), offs=offsets)

        us = time_graph(call, 4)
        out = call(0)
        reference = rows[0][total - 1].double() @ weights[0][GROUPS - 1].double().T
        error = ((out[total - 1].double() - reference).norm() / reference.norm()).item()
        print(
            f"torch {torch.__version__} _grouped_mm bf16 {GROUPS} x {count}: {us:.1f} us, "
            f"{2.0 * total * N * K / us / 1e6:.0f} TFLOP/s, error {error:.1e}",
            flush=True,
        )


if __name__ == "__main__":
    main()
