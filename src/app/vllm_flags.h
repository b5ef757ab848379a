// Flags of vLLM recipes that Moebius accepts without having anything to do: each is answered with
// one line.
#pragma once

#include <span>
#include <string_view>

namespace moebius::app {

struct NeutralFlag {
  const char* name;
  bool takes_value;
  const char* why;  // "--name is ignored: <why>"
};
std::span<const NeutralFlag> NeutralFlags();

// Sizes of parallel groups: 1 is what this build runs, more is an error that says so.
std::span<const char* const> ParallelFlags();

// Short spellings of several letters: "-tp" -> "--tensor-parallel-size"; null for anything else.
const char* LongName(std::string_view short_name);

}  // namespace moebius::app
