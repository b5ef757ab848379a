// Flags of vLLM recipes that Moebius accepts without having anything to do: each is answered with
// one line.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

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
  // What serve says instead of `why`; null: the same.
  const char* server_why = nullptr;
};
// Whether a value may be passed over.
bool IsAccepted(const NeutralFlag& flag, std::string_view value);
std::span<const NeutralFlag> NeutralFlags();

// Flags of a server that change what it promises, so that passing over them would be wrong: an
// error for serve.
struct RefusedFlag {
  const char* name;
  const char* why;  // "--name is not supported: <why>"
};
std::span<const RefusedFlag> RefusedFlags();

// An argument with a short spelling of several letters written out ("-tp=2" as
// "--tensor-parallel-size=2", "-O3" as "--optimization-level=3", "-cc.level=3" as
// "--compilation-config.level=3"); any other as it is.
std::string LongName(const std::string& arg);

// args[at]; a flag of several numbers with those that follow it, as one word
// ("--numa-bind-nodes=0 1"), so that it takes no MODEL. `at` moves to the last word that is used.
std::string JoinNumbers(const std::vector<std::string>& args, size_t& at);

}  // namespace moebius::app
