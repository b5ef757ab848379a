#include "app/eplb_clean.h"

#include <fmt/core.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace moebius::app {
namespace {

using platform::SegmentState;

std::string StateOf(const CleanedSegment& cleaned) {
  const platform::SegmentInfo& info = cleaned.segment.info;
  switch (info.state) {
    case SegmentState::kLive:
      return fmt::format("live, pid {}", info.owner);
    case SegmentState::kLeftOver:
      return fmt::format("left over by pid {}{}", info.owner, cleaned.removed ? ": removed" : "");
    case SegmentState::kForeign:
      break;
  }
  return "of another program or user: not touched";
}

std::string ShortBytes(uint64_t bytes) {
  return bytes >= uint64_t{1} << 30
             ? fmt::format("{:.1f} GiB", static_cast<double>(bytes) / (uint64_t{1} << 30))
             : fmt::format("{:.1f} MiB", static_cast<double>(bytes) / (uint64_t{1} << 20));
}

}  // namespace

Result<std::vector<CleanedSegment>> CleanHostPools(const EplbCleanOptions& options) {
  std::string base = options.name;
  if (options.all && !base.empty()) {
    return MakeError(ErrorCode::kInvalidArgument,
                     "--all takes every base name: expected no --name beside it, found '{}'", base);
  }
  if (!options.all) {
    if (base.empty()) {
      MOEBIUS_ASSIGN(base, moe::HostPoolBase());
    }
    MOEBIUS_TRY(moe::CheckHostPoolBase(base));
  }
  std::vector<CleanedSegment> segments;
  for (moe::HostSegment& segment : moe::ListHostSegments(base, options.folder)) {
    CleanedSegment cleaned = {std::move(segment)};
    if (!options.dry_run) {
      MOEBIUS_ASSIGN(cleaned.removed,
                     platform::RemoveLeftOver(cleaned.segment.info.name, options.folder));
    }
    segments.push_back(std::move(cleaned));
  }
  return segments;
}

void PrintCleaned(const std::vector<CleanedSegment>& segments, const EplbCleanOptions& options,
                  std::FILE* out) {
  size_t width = 0;
  size_t num_left_over = 0;
  size_t num_removed = 0;
  uint64_t left_over_bytes = 0;
  uint64_t removed_bytes = 0;
  for (const CleanedSegment& cleaned : segments) {
    const platform::SegmentInfo& info = cleaned.segment.info;
    width = std::max(width, info.name.size());
    if (info.state == SegmentState::kLeftOver) ++num_left_over, left_over_bytes += info.num_bytes;
    if (cleaned.removed) ++num_removed, removed_bytes += info.num_bytes;
  }
  for (const CleanedSegment& cleaned : segments) {
    const platform::SegmentInfo& info = cleaned.segment.info;
    fmt::print(out, "{:<{}}  {:>10}  {}\n", info.name, width, ShortBytes(info.num_bytes),
               StateOf(cleaned));
  }
  const std::string what =
      segments.size() == 1 ? "1 segment" : fmt::format("{} segments", segments.size());
  fmt::print(out, "{} in {}: {} left over ({}), {} removed ({}).\n", what, options.folder,
             num_left_over, ShortBytes(left_over_bytes), num_removed, ShortBytes(removed_bytes));
}

Status RunEplbClean(std::FILE* out, const EplbCleanOptions& options) {
  MOEBIUS_ASSIGN(const std::vector<CleanedSegment> segments, CleanHostPools(options));
  PrintCleaned(segments, options, out);
  if (std::fflush(out) != 0) {
    return MakeError(ErrorCode::kUnavailable, "cannot write the report: {}", std::strerror(errno));
  }
  return {};
}

}  // namespace moebius::app
