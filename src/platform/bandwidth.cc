#include "platform/bandwidth.h"

#include <emmintrin.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>

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

// Reads whole cache lines; the xor keeps the loads alive. Baseline SSE2 keeps up with any memory.
uint64_t ReadLines(const std::byte* data, size_t num_bytes) {
  __m128i sums[4] = {};
  for (size_t i = 0; i + 64 <= num_bytes; i += 64) {
    for (size_t part = 0; part < 4; ++part) {
      const auto* word = reinterpret_cast<const __m128i*>(data + i + 16 * part);
      sums[part] = _mm_xor_si128(sums[part], _mm_load_si128(word));
    }
  }
  const __m128i sum =
      _mm_xor_si128(_mm_xor_si128(sums[0], sums[1]), _mm_xor_si128(sums[2], sums[3]));
  return static_cast<uint64_t>(_mm_cvtsi128_si64(sum));
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
