// What benchmarks of operations run on: a back end with its threads, memory that no cache holds,
// and a table of rows. One thread.
#pragma once

#include <cstdio>
#include <functional>
#include <memory>
#include <string>

#include "kernels/backend.h"
#include "kernels/ops.h"
#include "platform/memory.h"
#include "platform/thread_pool.h"

namespace moebius::bench {

struct OperationRow {
  std::string what;
  double seconds = 0;
  double bytes = 0;  // that must come from memory; 0: it is no question of memory
  double flops = 0;
  bool right = true;
};

class OperationMachine {
 public:
  // weight_bytes: of `weights`. cpu_time: one thread, and only the time that it really runs.
  static Result<std::unique_ptr<OperationMachine>> Create(size_t weight_bytes, bool cpu_time,
                                                          std::FILE* json);

  kernels::ExecContext context() { return {&backend_, pool_.get(), &arena_}; }
  // The scalar back end, which says what is right.
  kernels::ExecContext reference() { return {&kernels::RefBackend(), pool_.get(), &arena_}; }
  // Small finite numbers, whatever they are read as.
  const platform::Region& weights() const { return weights_; }
  std::byte* activations(size_t offset) const { return activations_.data() + offset; }

  double Now() const;
  // Median seconds of one call after three; `run(i)` is the i-th of all.
  double Median(const std::function<void(int)>& run, int passes = kPasses) const;
  static constexpr int kPasses = 15;
  static constexpr int kCalls = kPasses + 3;

  void PrintHeader() const;
  void Print(const OperationRow& row);
  bool all_right() const { return all_right_; }

 private:
  explicit OperationMachine(const kernels::Backend& backend, bool cpu_time, std::FILE* json);

  const kernels::Backend& backend_;
  const bool cpu_time_;
  std::FILE* const json_;
  std::unique_ptr<platform::ThreadPool> pool_;
  platform::Region workspace_;
  Arena arena_;
  platform::Region weights_;
  platform::Region activations_;
  double bytes_per_second_ = 0;
  bool all_right_ = true;
};

// Whether rows of `got` are those of `want` but for rounding.
bool IsClose(const Mat& got, const Mat& want);

// The groups of rows.
void BenchDecode(OperationMachine& machine);
void BenchPrefill(OperationMachine& machine);
void BenchAttention(OperationMachine& machine);
void BenchSampling(OperationMachine& machine);
void BenchSmall(OperationMachine& machine);  // what a tiny model's step is made of

// One MoE layer's two products for so many tokens, top-8 of as many experts as fit the weights'
// memory.
void BenchMoe(OperationMachine& machine, kernels::WeightFormat format, int64_t hidden,
              int64_t inner, int64_t num_experts, int64_t tokens);
void BenchGemm(OperationMachine& machine, kernels::WeightFormat format, DType act, int64_t tokens,
               int64_t n, int64_t k);

}  // namespace moebius::bench
