// The random number of a draw: a pure function of (seed, position), so that a request draws the
// same tokens alone, in a batch, after a preemption and on every back end. Any thread.
#pragma once

#include <cstdint>

namespace moebius::kernels {

// The finaliser of SplitMix64 (Steele, Lea, Flood 2014): every input bit flips half the output
// bits.
constexpr uint64_t MixBits(uint64_t x) {
  x += 0x9e3779b97f4a7c15u;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}

// Uniform in [0, 1), a multiple of 2^-53.
constexpr double UniformAt(uint64_t seed, int64_t position) {
  const uint64_t bits = MixBits(MixBits(seed) ^ static_cast<uint64_t>(position));
  return static_cast<double>(bits >> 11) * 0x1p-53;
}

}  // namespace moebius::kernels
