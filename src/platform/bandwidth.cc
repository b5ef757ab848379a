#include "platform/bandwidth.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstring>

#include "platform/memory.h"
#include "platform/topology.h"

namespace moebius::platform {
namespace {

constexpr size_t kMiB = size_t{1} << 20;
constexpr size_t kChunk = 4 * kMiB;  // one task

using Clock = std::chrono::steady_clock;
double SecondsSince(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

// Touches every cache line once, and asks for each some lines ahead: memory moves whole lines, and
// one load a line leaves the core room to keep many in flight. (Reading all of each line with
// 16-byte loads measured half of it.)
uint64_t ReadLines(const std::byte* data, size_t num_bytes) {
  constexpr size_t kLine = 64;
  constexpr size_t kLines = 4;  // independent sums
  constexpr size_t kAhead = 2048;
  uint64_t sums[kLines] = {};
  for (size_t i = 0; i + kLines * kLine <= num_bytes; i += kLines * kLine) {
    for (size_t line = 0; line < kLines; ++line) {
      const std::byte* at = data + i + line * kLine;
      __builtin_prefetch(at + kAhead);
      uint64_t word = 0;
      std::memcpy(&word, at, sizeof(word));
      sums[line] ^= word;
    }
  }
  return sums[0] ^ sums[1] ^ sums[2] ^ sums[3];
}

// Bytes per second of the best pass.
template <typename Pass>
double BestPass(size_t num_bytes, double seconds, const Pass& pass) {
  double best = 0;
  const Clock::time_point start = Clock::now();
  do {
    const Clock::time_point pass_start = Clock::now();
    pass();
    best = std::max(best, static_cast<double>(num_bytes) / SecondsSince(pass_start));
  } while (SecondsSince(start) < seconds);
  return best;
}

size_t DefaultBytes() {
  size_t num_bytes = 256 * kMiB;
  if (const Result<Topology> topology = DetectTopology()) {
    num_bytes = std::max(num_bytes, static_cast<size_t>(2 * topology->l3_bytes) *
                                        static_cast<size_t>(std::max(1, topology->num_l3)));
  }
  num_bytes = std::min(num_bytes, 512 * kMiB);
  if (const Result<SystemMemory> memory = ReadSystemMemory()) {
    num_bytes = std::min(num_bytes, static_cast<size_t>(memory->available / 4));
  }
  return num_bytes;
}

}  // namespace

Result<Bandwidth> MeasureReadBandwidth(ThreadPool& pool, const BandwidthOptions& options) {
  const size_t wanted = options.num_bytes != 0 ? options.num_bytes : DefaultBytes();
  const int64_t num_chunks = static_cast<int64_t>(std::max<size_t>(1, wanted / kChunk));
  Bandwidth bandwidth;
  bandwidth.num_bytes = static_cast<size_t>(num_chunks) * kChunk;
  MOEBIUS_ASSIGN(const Region region, Region::Allocate(bandwidth.num_bytes));

  // Pages are dealt by the threads that read them, or the zero page would be read instead of
  // memory.
  pool.Run(num_chunks, [&](int64_t chunk, int) {
    std::byte* begin = region.data() + static_cast<size_t>(chunk) * kChunk;
    std::fill(begin, begin + kChunk, static_cast<std::byte>(chunk + 1));
  });

  std::atomic<uint64_t> sink{0};
  const auto read_chunk = [&](int64_t chunk) {
    const std::byte* begin = region.data() + static_cast<size_t>(chunk) * kChunk;
    sink.fetch_xor(ReadLines(begin, kChunk), std::memory_order_relaxed);
  };
  bandwidth.one_thread = BestPass(bandwidth.num_bytes, options.seconds_each, [&] {
    for (int64_t chunk = 0; chunk < num_chunks; ++chunk) read_chunk(chunk);
  });
  bandwidth.all_threads = BestPass(bandwidth.num_bytes, options.seconds_each, [&] {
    pool.Run(num_chunks, [&](int64_t chunk, int) { read_chunk(chunk); });
  });
  return bandwidth;
}

}  // namespace moebius::platform
