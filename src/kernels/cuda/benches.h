// The benchmarks of this folder, which `moebius bench kernels` and `bench exchange` run on a GPU.
// Each prints a table, checks what it has computed and returns whether all of it was right; json,
// where it is not null, gets an object a line. Main thread, current device. A fault of CUDA ends
// the program.
#pragma once

#include <cstdio>
#include <functional>

#include "kernels/cuda/each_once.h"
#include "kernels/cuda/gemm/dense_product.h"

struct CUstream_st;

namespace moebius::kernels::cuda {

// Experts' products. all_tiles: each row once more with every tile that fits.
bool BenchGroupedGemm(bool all_tiles, std::FILE* json);
// Products of few rows. library: queues what more rows take.
bool BenchFewRows(const std::function<void(const DenseProduct&, CUstream_st*)>& library,
                  std::FILE* json);
// all: every batch and context.
bool BenchMlaDecode(bool all, std::FILE* json);
bool BenchGqa(std::FILE* json);
// Prompts' chunks expanded, beside the same chunks absorbed. dense: queues the products of both.
bool BenchMlaPrefill(const std::function<void(const DenseProduct&, CUstream_st*)>& dense,
                     std::FILE* json);
// Norms, rotation, routing, draws; nothing is checked.
void BenchRows(std::FILE* json);
// Dispatch, combine and all-reduce between the first so many devices, which address each other;
// on_one: all ranks on device 0. Once: no all-reduce, whose kernels cannot run one after another.
bool BenchExchange(int num_ranks, bool on_one, std::FILE* json);

}  // namespace moebius::kernels::cuda
