#include "app/doctor_memory.h"

#include <fmt/core.h>
#include <sys/resource.h>

#include <limits>

#include "platform/binding.h"

namespace moebius::app {
namespace {

std::string WholeOrGibibytes(uint64_t bytes) {
  constexpr uint64_t kGibibyte = uint64_t{1} << 30;
  return bytes < kGibibyte
             ? fmt::format("{} MiB", bytes >> 20)
             : fmt::format("{:.1f} GiB", static_cast<double>(bytes) / double{kGibibyte});
}

uint64_t LockedMemoryLimit() {
  struct rlimit limit{};
  if (getrlimit(RLIMIT_MEMLOCK, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY) {
    return std::numeric_limits<uint64_t>::max();
  }
  return limit.rlim_cur;
}

}  // namespace

Finding CheckSharedMemory(const Result<platform::SharedMemoryRoom>& room) {
  Finding finding = {"/dev/shm", FindingState::kOk, "", ""};
  // NCCL opens files there for the GPUs of one host, and a host pool of experts lies there. What
  // Moebius's ranks share has no name and lies elsewhere.
  constexpr uint64_t kEnough = uint64_t{1} << 30;
  finding.found = !room ? room.error().message()
                  : room->total == platform::SharedMemoryRoom::kUnlimited
                      ? std::string("no limit")
                      : fmt::format("{} of {} free", WholeOrGibibytes(room->free),
                                    WholeOrGibibytes(room->total));
  if (room && room->free >= kEnough) return finding;
  finding.state = FindingState::kWarning;
  finding.remedy =
      room && room->total >= kEnough
          ? "NCCL wants about 1 GiB of it for the GPUs of one host: see what lies there (ls -l "
            "/dev/shm; moebius eplb clean)"
          : "NCCL wants about 1 GiB for the GPUs of one host: docker run --shm-size=8g, or mount "
            "-o "
            "remount,size=8G /dev/shm. A host pool of experts needs all of their bytes";
  return finding;
}

Finding CheckSharedHugePages(const std::string& word) {
  Finding finding = {"huge pages in /dev/shm", FindingState::kOk, word, ""};
  if (platform::GivesHugePages(word)) return finding;
  finding.state = FindingState::kNotApplicable;
  if (word.empty()) {
    finding.found = "this kernel has none";
    return finding;
  }
  finding.remedy = "only a host pool of experts would use them. As root: ";
  finding.remedy += word == "deny" ? "echo never > "
                                     "/sys/kernel/mm/transparent_hugepage/shmem_enabled, then "
                                   : "";
  finding.remedy += "mount -o remount,huge=advise /dev/shm";
  return finding;
}

Finding CheckMemoryLimit(const Result<platform::SystemMemory>& memory) {
  Finding finding = {"memory limit", FindingState::kNotApplicable, "no cgroup sets one", ""};
  if (!memory) {
    finding.found = memory.error().message();
  } else if (memory->limit != 0) {
    finding.state = FindingState::kOk;
    finding.found = fmt::format("{} by a cgroup, and what is in /dev/shm counts",
                                WholeOrGibibytes(memory->limit));
  }
  return finding;
}

Finding CheckLockedMemory(uint64_t limit) {
  Finding finding = {"locked memory", FindingState::kOk, "no limit", ""};
  if (limit == std::numeric_limits<uint64_t>::max()) return finding;
  finding.found = fmt::format("{} (ulimit -l)", WholeOrGibibytes(limit));
  finding.remedy =
      "enough on one host. RDMA between hosts registers memory: docker run --ulimit memlock=-1, or "
      "LimitMEMLOCK=infinity in a systemd unit";
  return finding;
}

Finding CheckMemoryBinding(const Result<platform::Topology>& topology, const Status& probe) {
  Finding finding = {"memory binding", FindingState::kOk, "allowed", ""};
  if (!topology) {
    finding.state = FindingState::kNotApplicable;
    finding.found = topology.error().message();
    return finding;
  }
  std::vector<int> with_cpus;
  std::vector<int> without_cpus;
  for (const platform::NumaNode& node : topology->numa_nodes) {
    (node.cpus.empty() ? without_cpus : with_cpus).push_back(node.id);
  }
  if (!probe) {
    finding.found = probe.error().message();
    if (topology->numa_nodes.size() < 2) {
      finding.state = FindingState::kNotApplicable;
      finding.found += " (there is one)";
    } else {
      finding.state = FindingState::kWarning;
      finding.remedy =
          "ranks cannot keep their memory near their cores. In a container: docker run --cap-add "
          "SYS_NICE; or start it all under numactl -m outside";
    }
  }
  if (!without_cpus.empty()) {
    finding.remedy += fmt::format(
        "{}nodes {} have memory and no cpus, as GPUs do: numactl -m {} keeps host memory off them",
        finding.remedy.empty() ? "" : "\n", platform::CpuListText(without_cpus),
        platform::CpuListText(with_cpus));
  }
  return finding;
}

Finding CheckHostPools(const std::vector<moe::HostSegment>& segments) {
  Finding finding = {"eplb host pools", FindingState::kNotApplicable, "none in /dev/shm", ""};
  if (segments.empty()) return finding;
  size_t num_live = 0;
  size_t num_left_over = 0;
  uint64_t left_over_bytes = 0;
  for (const moe::HostSegment& segment : segments) {
    if (segment.info.state == platform::SegmentState::kLive) ++num_live;
    if (segment.info.state != platform::SegmentState::kLeftOver) continue;
    ++num_left_over;
    left_over_bytes += segment.info.num_bytes;
  }
  finding.state = FindingState::kOk;
  finding.found = fmt::format("{} segment(s), {} live", segments.size(), num_live);
  if (num_left_over > 0) {
    finding.state = FindingState::kWarning;
    finding.found += fmt::format(", {} left over by a crash ({})", num_left_over,
                                 WholeOrGibibytes(left_over_bytes));
    finding.remedy = "moebius eplb clean --all";
  }
  return finding;
}

std::vector<Finding> CheckMemories(const DoctorOptions& options,
                                   const Result<platform::Topology>& topology) {
  const std::string folder = options.root + platform::kSharedMemoryFolder;
  const int first_node =
      topology && !topology->numa_nodes.empty() ? topology->numa_nodes.front().id : 0;
  return {
      CheckSharedMemory(platform::ReadSharedMemoryRoom(folder, options.root)),
      CheckSharedHugePages(platform::SharedHugePages(platform::kSharedMemoryFolder, options.root)),
      CheckMemoryLimit(platform::ReadSystemMemory(options.root)),
      CheckLockedMemory(LockedMemoryLimit()),
      CheckMemoryBinding(topology, platform::ProbeMemoryBinding(first_node)),
      CheckHostPools(moe::ListHostSegments("", folder))};
}

}  // namespace moebius::app
