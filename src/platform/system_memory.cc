// ReadSystemMemory: /proc/meminfo and the memory limits of the cgroups that hold this process.
#include <algorithm>
#include <charconv>
#include <fstream>
#include <optional>
#include <string>
#include <string_view>

#include "platform/memory.h"

namespace moebius::platform {
namespace {

// The number after "key" at the start of a line, if the file has such a line.
std::optional<uint64_t> ReadField(const std::string& path, std::string_view key) {
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);) {
    if (line.compare(0, key.size(), key) != 0) continue;
    const size_t start = line.find_first_not_of(" \t", key.size());
    if (start == std::string::npos) return std::nullopt;
    uint64_t value = 0;
    const auto [end, error] =
        std::from_chars(line.data() + start, line.data() + line.size(), value);
    if (error != std::errc()) return std::nullopt;
    return value;
  }
  return std::nullopt;
}

// The names of one cgroup version's files; a value of "max" is no number and so no limit.
struct CgroupFiles {
  const char* mount;
  const char* limit;
  const char* usage;
  const char*
      reclaimable;  // a line of memory.stat: file pages that the kernel gives up before it kills
};
constexpr CgroupFiles kVersion2 = {"/sys/fs/cgroup", "/memory.max", "/memory.current",
                                   "inactive_file "};
constexpr CgroupFiles kVersion1 = {"/sys/fs/cgroup/memory", "/memory.limit_in_bytes",
                                   "/memory.usage_in_bytes", "total_inactive_file "};
constexpr uint64_t kNoLimitVersion1 = uint64_t{1}
                                      << 62;  // version 1 writes "none" as a huge number

// Narrows `memory` by the limits of `group` and of every group above it. In a container the path
// may not exist (the mount shows only its own subtree); the mount's root then holds the container's
// limit.
void ApplyLimits(const std::string& root, const CgroupFiles& files, std::string group,
                 SystemMemory* memory) {
  while (true) {
    if (group == "/") group.clear();
    std::string folder = root;
    folder.append(files.mount).append(group);
    const std::optional<uint64_t> limit = ReadField(folder + files.limit, "");
    if (limit && *limit < kNoLimitVersion1) {
      const uint64_t usage = ReadField(folder + files.usage, "").value_or(0);
      const uint64_t cache = ReadField(folder + "/memory.stat", files.reclaimable).value_or(0);
      const uint64_t held = usage - std::min(usage, cache);
      memory->limit = memory->limit == 0 ? *limit : std::min(memory->limit, *limit);
      memory->available = std::min(memory->available, *limit - std::min(*limit, held));
    }
    if (group.empty()) return;
    group.erase(group.rfind('/') == std::string::npos ? 0 : group.rfind('/'));
  }
}

}  // namespace

Result<SystemMemory> ReadSystemMemory(const std::string& root) {
  const std::string meminfo = root + "/proc/meminfo";
  const std::optional<uint64_t> total_kb = ReadField(meminfo, "MemTotal:");
  const std::optional<uint64_t> available_kb = ReadField(meminfo, "MemAvailable:");
  if (!total_kb || !available_kb) {
    return MakeError(ErrorCode::kUnavailable,
                     "{}: expected lines MemTotal and MemAvailable in kB, found none", meminfo);
  }
  SystemMemory memory;
  memory.total = *total_kb * 1024;
  memory.available = *available_kb * 1024;
  // Lines are "id:controllers:path"; version 2 has id 0 and no controllers.
  std::ifstream groups(root + "/proc/self/cgroup");
  for (std::string line; std::getline(groups, line);) {
    const size_t first = line.find(':');
    const size_t second = first == std::string::npos ? first : line.find(':', first + 1);
    if (second == std::string::npos) continue;
    const std::string controllers = "," + line.substr(first + 1, second - first - 1) + ",";
    const std::string path = line.substr(second + 1);
    if (controllers == ",,") {
      ApplyLimits(root, kVersion2, path, &memory);
    } else if (controllers.find(",memory,") != std::string::npos) {
      ApplyLimits(root, kVersion1, path, &memory);
    }
  }
  return memory;
}

}  // namespace moebius::platform
