// The random number of a draw: a pure function of what it is for (a request's seed and position),
// so that a request draws the same tokens alone, in a batch, after a preemption and on every back
// end. Any thread, and kernels.
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

// Of a token at a position in a layer: the seed of its experts' noise.
constexpr uint64_t RoutingSeed(int layer, int32_t token, int32_t position) {
  const uint64_t place = static_cast<uint64_t>(position) << 20 | static_cast<uint64_t>(layer);
  return MixBits(MixBits(static_cast<uint64_t>(token)) ^ MixBits(place));
}

// In (0, 1), without its ends.
constexpr float OpenUniform(uint64_t bits) {
  return (static_cast<float>(bits >> 40) + 0.5f) * 0x1p-24f;
}

}  // namespace moebius::kernels
