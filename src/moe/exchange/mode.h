// Two ways to deal the copies of an exchange to a rank's threads. Bits and layout are the same in
// both, so each rank may choose for itself, call by call. Plain functions, any thread.
#pragma once

#include <cstdint>

namespace moebius::moe {

enum class ExchangeMode : uint8_t {
  kAuto,        // by tokens: ThroughputTokens
  kLatency,     // peer by peer; a peer is flagged as soon as its rows are there
  kThroughput,  // token by token, each row read once for all its peers; then all are flagged
};

// "auto", "latency", "throughput"
const char* ExchangeModeName(ExchangeMode mode);

// From how many tokens of a rank `auto` takes the throughput mode: where its rows outgrow the cache
// of a core, from which a walk a peer reads them again.
int64_t ThroughputTokens(int64_t row_bytes);

// The same between GPUs, of the fullest rank: from then on warps that take a row each beat blocks
// that do.
constexpr int64_t kDeviceThroughputTokens = 1024;

// `wish`, or what `auto` chooses for so many tokens.
ExchangeMode ChooseMode(ExchangeMode wish, int64_t tokens, int64_t row_bytes);

}  // namespace moebius::moe
