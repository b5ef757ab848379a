// Figures that others published, beside what this planner estimates for the same set-up. Data and
// pure functions, any thread.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "plan/step_time.h"

namespace moebius::plan {

// What a figure is.
enum class Compared : uint8_t {
  kNone,         // cannot be estimated; the row's note says why
  kDecode,       // output tok/s per decoding GPU
  kTpot,         // ms per output token
  kUnderTpot,    // most output tok/s per GPU within a time per token
  kPrefill,      // prompt tok/s per prefilling GPU
  kServed,       // output tok/s per GPU of all, prefill included
  kWidthGain,    // kUnderTpot of EP32 over that of EP8
  kOutputGain,   // output tok/s of the layout over that of PublishedRow::other
  kTtftGain,     // its TTFT over the other's
  kPrefillGain,  // its prompt tok/s over the other's
  kFreeKv,       // GB of a GPU that are left for KV
};

enum class WeightKind : uint8_t {
  kAsStored,  // the checkpoint's own
  kFp4,       // experts NVFP4, the rest bf16
  kFp4Fp8,    // experts NVFP4, the rest fp8
  kBf16Fp8,   // experts fp8, the rest bf16
};

// Whose figure: a run on hardware, or a sum of measured operations like ours. Or what it is: which
// of two layouts leads and by how much (right or wrong before it is near or far), or memory.
enum class FigureKind : uint8_t { kRun, kSummed, kOrdering, kMemory };
constexpr FigureKind kFigureKinds[] = {FigureKind::kRun, FigureKind::kSummed, FigureKind::kOrdering,
                                       FigureKind::kMemory};

struct OtherLayout {
  int tp = 1;
  int dp = 1;
  bool ep = false;
};

struct PublishedRow {
  const char* source = "";
  const char* device = "";
  const char* model = "deepseek-ai/DeepSeek-R1";
  Compared compared = Compared::kNone;
  double figure = 0;
  FigureKind kind = FigureKind::kRun;
  int tp = 1;
  int dp = 1;
  bool ep = true;
  int64_t isl = 0;
  int64_t osl = 0;
  int64_t batch = 0;    // requests of a DP rank; prefill: tokens of a rank in a step
  int64_t context = 0;  // decode; 0: isl + osl / 2
  double tpot_ms = 0;   // limit
  int redundant = 0;
  double zipf = 0.57;  // of DeepSeek's router
  bool eplb = true;
  bool two_batch = false;
  bool gather = false;  // all-gather and reduce-scatter
  double mtp = 1;
  double kv_bytes = 2;
  WeightKind weights = WeightKind::kAsStored;
  const char* note = "";  // what was assumed, or why there is no estimate
  // kOrdering: against what; batch is then of the whole deployment. `above` is what was published
  // where no factor was (figure 0): whether the first is above the other.
  OtherLayout other{};
  bool above = false;
};
std::span<const PublishedRow> PublishedRows();
std::span<const PublishedRow> PublishedOrderings();  // and memory

struct PublishedComparison {
  PublishedRow row;
  std::string layout;  // "DP32+EP"
  std::string load;    // "256 a rank, context 3000"
  std::string unit;    // "tok/s/GPU", "ms", "x"
  std::optional<double> estimate;
  std::optional<double> error;    // estimate / figure - 1; none where no factor was published
  std::optional<bool> same_sign;  // kOrdering: the layout that leads is the published one
  Basis basis = Basis::kRoofline;
};

// Every row, in order, those without an estimate too.
std::vector<PublishedComparison> ComparePublished();

// Of the rows of one kind that have an estimate.
struct ErrorSummary {
  int64_t rows = 0;
  int64_t estimated = 0;
  double median = 0;     // of |error|
  double within_15 = 0;  // share
  double within_30 = 0;
  int64_t same_sign = 0;  // kOrdering: rows
};
ErrorSummary Summarise(std::span<const PublishedComparison> rows, FigureKind kind);

}  // namespace moebius::plan
