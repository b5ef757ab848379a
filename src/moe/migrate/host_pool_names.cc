#include "moe/migrate/host_pool_names.h"

#include <fmt/core.h>

#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <filesystem>
#include <string_view>
#include <tuple>

namespace moebius::moe {
namespace {

// Takes `tag` and the whole number after it off the end of `text`.
std::optional<int> TakeNumber(std::string_view& text, std::string_view tag) {
  const size_t at = text.rfind(tag);
  if (at == std::string_view::npos) return std::nullopt;
  const std::string_view digits = text.substr(at + tag.size());
  int value = 0;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value);
  if (error != std::errc() || end != digits.data() + digits.size() || value < 0) {
    return std::nullopt;
  }
  text = text.substr(0, at);
  return value;
}

}  // namespace

Status CheckHostPoolBase(const std::string& base) {
  constexpr size_t kMostCharacters = 200;  // a file's name has 255
  if (base.size() <= kMostCharacters && platform::CheckSegmentName(base)) return {};
  return MakeError(ErrorCode::kInvalidArgument,
                   "'{}' is no base name of a host pool: expected 1 to {} characters without "
                   "slashes and without a dot in front",
                   base, kMostCharacters);
}

Result<std::string> HostPoolBase() {
  for (const char* variable : {"MOEBIUS_EPLB_SHM_NAME", "TRTLLM_EPLB_SHM_NAME"}) {
    const char* value = std::getenv(variable);
    if (value == nullptr) continue;
    const Status status = CheckHostPoolBase(value);
    if (!status) return tl::unexpected<Error>(status.error().WithContext(variable));
    return std::string(value);
  }
  return std::string("moe_shared");
}

std::string HostSegmentName(const std::string& base, int layer, int local_rank) {
  return fmt::format("{}_l{}_lr{}_all", base, layer, local_rank);
}

std::optional<HostSegmentId> ParseHostSegment(const std::string& name) {
  std::string_view rest = name;
  constexpr std::string_view kEnd = "_all";
  if (!rest.ends_with(kEnd)) return std::nullopt;
  rest.remove_suffix(kEnd.size());
  const std::optional<int> local_rank = TakeNumber(rest, "_lr");
  const std::optional<int> layer = TakeNumber(rest, "_l");
  if (!local_rank || !layer || rest.empty()) return std::nullopt;
  return HostSegmentId{std::string(rest), *layer, *local_rank};
}

std::vector<HostSegment> ListHostSegments(const std::string& base, const std::string& folder) {
  std::vector<HostSegment> segments;
  std::error_code error;
  std::filesystem::directory_iterator entry(folder, error);
  for (; !error && entry != std::filesystem::directory_iterator(); entry.increment(error)) {
    const std::string name = entry->path().filename().string();
    const std::optional<HostSegmentId> id = ParseHostSegment(name);
    if (!id || (!base.empty() && id->base != base)) continue;
    // It may have gone since.
    if (const auto info = platform::InspectSegment(name, folder)) segments.push_back({*id, *info});
  }
  std::ranges::sort(segments, {}, [](const HostSegment& segment) {
    return std::tie(segment.id.base, segment.id.layer, segment.id.local_rank);
  });
  return segments;
}

}  // namespace moebius::moe
