#include "bench/micro/micro_bench.h"

#include <fmt/ranges.h>

#include <algorithm>

namespace moebius::bench {

Status CheckParts(const std::vector<std::string>& parts, const std::vector<std::string>& known) {
  for (const std::string& part : parts) {
    if (std::ranges::find(known, part) != known.end()) continue;
    return MakeError(ErrorCode::kInvalidArgument, "--part is '{}', expected one of {}", part,
                     fmt::join(known, ", "));
  }
  return {};
}

}  // namespace moebius::bench
