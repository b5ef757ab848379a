// moebius bench kernels and bench exchange: what their flags ask for.
#pragma once

#include <string>

#include "base/result.h"
#include "bench/micro/micro_bench.h"

namespace CLI {
class App;
}

namespace moebius::app {

struct BenchKernelsOptions {
  std::string device = "cpu";
  std::string json;  // file; empty: none
  bench::KernelBenchOptions bench;
};

struct BenchExchangeOptions {
  std::string device = "cpu";
  std::string json;
  bench::ExchangeBenchOptions bench;
};

// bench_micro_flags.cc
void AddBenchKernelsFlags(CLI::App* app, BenchKernelsOptions& options);
void AddBenchExchangeFlags(CLI::App* app, BenchExchangeOptions& options);

}  // namespace moebius::app
