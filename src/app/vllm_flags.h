// Flags of vLLM recipes that Moebius accepts without having anything to do: each is answered with
// one line.
#pragma once

#include <span>
#include <string_view>

namespace moebius::app {

enum class NeutralKind {
  kSwitch,  // --name and --no-name
  kValue,
};

struct NeutralFlag {
  const char* name;
  NeutralKind kind;
  const char* why;             // "--name is ignored: <why>"
  const char* only = nullptr;  // the values that may be passed over; null: any
};
// Whether a value may be passed over.
bool IsAccepted(const NeutralFlag& flag, std::string_view value);
std::span<const NeutralFlag> NeutralFlags();

// Sizes of parallel groups: 1 is what this build runs, more is an error that says so.
std::span<const char* const> ParallelFlags();

// Short spellings of several letters: "-tp" -> "--tensor-parallel-size"; null for anything else.
const char* LongName(std::string_view short_name);

}  // namespace moebius::app
