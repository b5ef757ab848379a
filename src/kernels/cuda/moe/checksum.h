// A checksum of bytes in device memory, this GPU's or a peer's: for weights that travel between
// GPUs. By few blocks, so that steps beside it lose nothing. A launch allocates nothing and waits
// for nothing. Plain host functions without CUDA headers; any thread that owns the stream.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/random.h"

struct CUstream_st;

namespace moebius::kernels::cuda {

// What word i of the bytes (little endian, the last one filled up with zeros) adds to the sum.
constexpr uint64_t ChecksumPart(uint64_t i, uint64_t word) { return MixBits(word ^ MixBits(i)); }

// *sum (in device memory) += the parts of all words. bytes: at a multiple of 8. Returns 0 or the
// cudaError_t of the launch.
int LaunchChecksum(const std::byte* bytes, size_t num_bytes, uint64_t* sum, CUstream_st* stream);

}  // namespace moebius::kernels::cuda
