#include "platform/shared_memory_room.h"

#include <sys/statvfs.h>

#include <cerrno>
#include <cstring>
#include <fstream>
#include <iterator>
#include <sstream>

#include "base/math.h"
#include "platform/memory.h"

namespace moebius::platform {
namespace {

constexpr uint64_t kGibibyte = uint64_t{1} << 30;

std::string GibibytesOf(uint64_t bytes) {
  return fmt::format("{:.2f} GiB", static_cast<double>(bytes) / kGibibyte);
}

uint64_t WholeGibibytes(uint64_t bytes) { return RoundUp(bytes, kGibibyte) / kGibibyte; }

}  // namespace

Result<SharedMemoryRoom> ReadSharedMemoryRoom(const std::string& folder, const std::string& root) {
  struct statvfs info = {};
  if (statvfs(folder.c_str(), &info) != 0) {
    return MakeError(ErrorCode::kUnavailable, "{}: {}", folder, std::strerror(errno));
  }
  SharedMemoryRoom room;
  room.folder = folder;
  const auto unit = static_cast<uint64_t>(info.f_frsize);
  // A tmpfs that was mounted with size=0 has no limit and says no size.
  room.total = info.f_blocks == 0 ? SharedMemoryRoom::kUnlimited : info.f_blocks * unit;
  room.free = info.f_blocks == 0 ? SharedMemoryRoom::kUnlimited : info.f_bavail * unit;
  if (const Result<SystemMemory> memory = ReadSystemMemory(root)) {
    room.memory = memory->available;
    room.memory_limit = memory->limit;
  }
  return room;
}

Status CheckRoom(const SharedMemoryRoom& room, const std::string& what, uint64_t num_bytes) {
  if (num_bytes > room.free) {
    // What others keep there stays there.
    const uint64_t gib = WholeGibibytes(room.total - room.free + num_bytes);
    return MakeError(ErrorCode::kOutOfMemory,
                     "{} needs {} ({} bytes) in {}, where {} of {} are free. Make it larger: "
                     "mount -o remount,size={}G {} (in Docker: --shm-size={}g; in Kubernetes: an "
                     "emptyDir with medium: Memory and sizeLimit: {}Gi, mounted at {})",
                     what, GibibytesOf(num_bytes), num_bytes, room.folder, GibibytesOf(room.free),
                     GibibytesOf(room.total), gib, room.folder, gib, gib, room.folder);
  }
  if (num_bytes > room.memory) {
    const std::string limit =
        room.memory_limit == 0
            ? std::string("on this machine")
            : fmt::format("within the container's limit of {}", GibibytesOf(room.memory_limit));
    return MakeError(ErrorCode::kOutOfMemory,
                     "{} needs {} ({} bytes) of memory, and {} are available {}. Raise the limit "
                     "(docker run --memory, Kubernetes resources.limits.memory), use a machine "
                     "with more, or go without a host pool",
                     what, GibibytesOf(num_bytes), num_bytes, GibibytesOf(room.memory), limit);
  }
  return {};
}

std::string ChosenWord(const std::string& setting) {
  const size_t open = setting.find('[');
  const size_t close = setting.find(']', open == std::string::npos ? 0 : open);
  if (open == std::string::npos || close == std::string::npos) return "";
  return setting.substr(open + 1, close - open - 1);
}

std::string SharedHugePages(const std::string& folder, const std::string& root) {
  std::ifstream file(root + "/sys/kernel/mm/transparent_hugepage/shmem_enabled");
  const std::string setting((std::istreambuf_iterator<char>(file)), {});
  std::string everywhere = ChosenWord(setting);
  // The other words are for memory without a name, which has a mount of its own.
  if (everywhere.empty() || everywhere == "deny" || everywhere == "force") return everywhere;
  std::string word = "never";
  std::ifstream mounts(root + "/proc/self/mounts");
  for (std::string line; std::getline(mounts, line);) {
    std::istringstream fields(line);
    std::string device;
    std::string point;
    std::string type;
    std::string options;
    if (!(fields >> device >> point >> type >> options) || point != folder) continue;
    word = "never";  // the last mount hides the others
    std::istringstream list(options);
    for (std::string option; std::getline(list, option, ',');) {
      if (option.starts_with("huge=")) word = option.substr(5);
    }
  }
  return word;
}

bool GivesHugePages(const std::string& word) {
  return !word.empty() && word != "never" && word != "deny";
}

}  // namespace moebius::platform
