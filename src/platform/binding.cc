#include "platform/binding.h"

#include <numaif.h>
#include <sched.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "base/log.h"
#include "platform/topology.h"

namespace moebius::platform {
namespace {

constexpr int kMaxNodes = 1024;
constexpr int kBitsPerWord = 8 * sizeof(unsigned long);

struct NodeMask {
  unsigned long words[kMaxNodes / kBitsPerWord] = {};
};

std::vector<int> Sorted(std::vector<int> numbers) {
  std::ranges::sort(numbers);
  return numbers;
}

}  // namespace

std::vector<int> CpusOfThread(pthread_t thread) {
  cpu_set_t set;
  CPU_ZERO(&set);
  std::vector<int> cpus;
  if (pthread_getaffinity_np(thread, sizeof(set), &set) != 0) return cpus;
  for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
    if (CPU_ISSET(cpu, &set)) cpus.push_back(cpu);
  }
  return cpus;
}

Status CheckBinding(const char* what, const std::vector<int>& found,
                    const std::vector<int>& planned, const std::string& who) {
  if (Sorted(found) == Sorted(planned)) return {};
  const auto text = [](const std::vector<int>& numbers) {
    return numbers.empty() ? std::string("none in particular") : CpuListText(Sorted(numbers));
  };
  return MakeError(ErrorCode::kUnavailable, "{} {} {}, planned were {}", who, what, text(found),
                   text(planned));
}

Status BindThread(pthread_t thread, const std::vector<int>& cpus, const std::string& who) {
  cpu_set_t set;
  CPU_ZERO(&set);
  for (const int cpu : cpus) {
    if (cpu >= 0 && cpu < CPU_SETSIZE) CPU_SET(static_cast<size_t>(cpu), &set);
  }
  if (const int error = pthread_setaffinity_np(thread, sizeof(set), &set); error != 0) {
    return MakeError(ErrorCode::kUnavailable, "{} cannot be bound to cpus {}: {}", who,
                     CpuListText(Sorted(cpus)), std::strerror(error));
  }
  return CheckBinding("runs on cpus", CpusOfThread(thread), cpus, who);
}

std::vector<int> MemoryNodesOfThread() {
  NodeMask mask;
  int mode = MPOL_DEFAULT;
  std::vector<int> nodes;
  if (get_mempolicy(&mode, mask.words, kMaxNodes, nullptr, 0) != 0 || mode != MPOL_BIND) {
    return nodes;
  }
  for (int node = 0; node < kMaxNodes; ++node) {
    if (((mask.words[node / kBitsPerWord] >> (node % kBitsPerWord)) & 1) != 0) {
      nodes.push_back(node);
    }
  }
  return nodes;
}

Status ProbeMemoryBinding(int node) {
  NodeMask mask;
  if (node < 0 || node >= kMaxNodes) {
    return MakeError(ErrorCode::kUnavailable, "NUMA node {} is not below {}", node, kMaxNodes);
  }
  mask.words[node / kBitsPerWord] = 1UL << (node % kBitsPerWord);
  const auto size = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  void* page = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  const bool bound =
      page != MAP_FAILED && mbind(page, size, MPOL_BIND, mask.words, kMaxNodes + 1, 0) == 0;
  const int reason = errno;
  if (page != MAP_FAILED) munmap(page, size);
  if (bound) return {};
  return MakeError(ErrorCode::kUnavailable, "memory cannot be bound to NUMA node {}: {}", node,
                   std::strerror(reason));
}

Result<bool> BindMemory(const std::vector<int>& nodes, const std::string& who) {
  NodeMask mask;
  for (const int node : nodes) {
    if (node < 0 || node >= kMaxNodes) continue;
    mask.words[node / kBitsPerWord] |= 1UL << (node % kBitsPerWord);
  }
  // The kernel reads one bit less than it is told.
  if (set_mempolicy(MPOL_BIND, mask.words, kMaxNodes + 1) != 0) {
    LogWarning(
        "{}: memory cannot be bound to NUMA node {} ({}); pages lie where they are first used", who,
        CpuListText(Sorted(nodes)), std::strerror(errno));
    return false;
  }
  MOEBIUS_TRY(CheckBinding("has its memory on NUMA nodes", MemoryNodesOfThread(), nodes, who));
  return true;
}

}  // namespace moebius::platform
