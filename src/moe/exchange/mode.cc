#include "moe/exchange/mode.h"

#include <algorithm>

namespace moebius::moe {
namespace {

constexpr int64_t kCacheBytes = 1 << 20;  // half of a core's second level

}  // namespace

const char* ExchangeModeName(ExchangeMode mode) {
  switch (mode) {
    case ExchangeMode::kAuto:
      return "auto";
    case ExchangeMode::kLatency:
      return "latency";
    case ExchangeMode::kThroughput:
      return "throughput";
  }
  return "unknown";
}

int64_t ThroughputTokens(int64_t row_bytes) {
  return std::max<int64_t>(1, kCacheBytes / std::max<int64_t>(row_bytes, 1));
}

ExchangeMode ChooseMode(ExchangeMode wish, int64_t tokens, int64_t row_bytes) {
  if (wish != ExchangeMode::kAuto) return wish;
  return tokens < ThroughputTokens(row_bytes) ? ExchangeMode::kLatency : ExchangeMode::kThroughput;
}

}  // namespace moebius::moe
