#include "app/doctor.h"

#include <fmt/core.h>
#include <fmt/ranges.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <memory>
#include <sstream>

#include "app/doctor_gpu.h"
#include "app/doctor_memory.h"
#include "kernels/backend.h"
#include "platform/shared_memory_room.h"
#include "platform/thread_pool.h"

namespace moebius::app {
namespace {

constexpr double kGiB = 1024.0 * 1024 * 1024;

// Bytes a second that one core of any server or desktop reads alone, and so do a few of them each.
constexpr double kLeastOfACore = 4e9;

std::string Gibibytes(uint64_t bytes) {
  return fmt::format("{:.1f} GiB", static_cast<double>(bytes) / kGiB);
}

std::string CacheSize(uint64_t bytes, int count) {
  const uint64_t kib = bytes >> 10;
  const std::string size = kib >= 1024 ? fmt::format("{:.4g} MiB", static_cast<double>(kib) / 1024)
                                       : fmt::format("{} KiB", kib);
  return count > 1 ? fmt::format("{} x {}", count, size) : size;
}

std::string OutputOf(const std::string& command) {
  const auto close = [](std::FILE* pipe) { pclose(pipe); };
  const std::unique_ptr<std::FILE, decltype(close)> pipe(
      popen(("timeout 10 " + command + " 2>/dev/null").c_str(), "r"), close);
  if (pipe == nullptr) return "";
  std::string output;
  std::array<char, 4096> buffer;
  while (const size_t count = std::fread(buffer.data(), 1, buffer.size(), pipe.get())) {
    output.append(buffer.data(), count);
  }
  return output;
}

Finding CheckKernelsOfThisMachine() {
  std::vector<std::string> available;
  for (const kernels::Backend* backend : kernels::AvailableBackends()) {
    available.emplace_back(backend->name);
  }
  const Result<const kernels::Backend*> chosen = kernels::ChooseBackend();
  if (!chosen) return CheckKernels(tl::unexpected<Error>(chosen.error()), available, {});
  std::vector<std::string> missing;
  for (const std::string_view op : kernels::MissingOps(**chosen)) missing.emplace_back(op);
  return CheckKernels(std::string((*chosen)->name), available, missing);
}

}  // namespace

std::string ReadText(const std::string& path) {
  std::ifstream file(path);
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

Finding CheckCpu(const platform::CpuFeatures& features,
                 const Result<platform::Topology>& topology) {
  Finding finding = {"cpu", FindingState::kOk, features.model, ""};
  if (!topology) {
    finding.state = FindingState::kWarning;
    finding.remedy = topology.error().message() + "; threads are placed in the system's order";
    return finding;
  }
  finding.found += fmt::format("; {} socket(s), {} cores, {} threads", topology->num_sockets,
                               topology->num_cores, topology->num_cpus);
  if (topology->num_l2 > 0)
    finding.found += "; L2 " + CacheSize(topology->l2_bytes, topology->num_l2);
  if (topology->num_l3 > 0)
    finding.found += "; L3 " + CacheSize(topology->l3_bytes, topology->num_l3);
  return finding;
}

Finding CheckCpuFeatures(const platform::CpuFeatures& features) {
  Finding finding = {"cpu features", FindingState::kOk, features.Names(), ""};
  if (platform::BestIsa(features) == platform::Isa::kRef) {
    finding.state = FindingState::kWarning;
    if (finding.found.empty()) finding.found = "none of those that the kernels use";
    finding.remedy =
        "the fast kernels need avx2, fma and f16c (any x86 server since 2015). In a virtual "
        "machine, choose the "
        "host's CPU model";
  }
  return finding;
}

Finding CheckKernels(const Result<std::string>& chosen, const std::vector<std::string>& available,
                     const std::vector<std::string>& missing) {
  Finding finding = {"kernels", FindingState::kOk, "", ""};
  if (!chosen) {
    finding.state = FindingState::kWarning;
    finding.found = chosen.error().message();
    finding.remedy =
        fmt::format("unset MOEBIUS_ISA or set it to one of: {}", fmt::join(available, ", "));
    return finding;
  }
  finding.found = fmt::format("{} (available: {})", *chosen, fmt::join(available, ", "));
  if (!missing.empty()) {
    finding.state = FindingState::kWarning;
    finding.found += fmt::format("; lacks {}", fmt::join(missing, ", "));
    finding.remedy =
        "models that need these operations will not start; MOEBIUS_ISA=ref has them all";
  } else if (!available.empty() && *chosen != available.front()) {
    finding.state = FindingState::kWarning;
    finding.remedy =
        fmt::format("MOEBIUS_ISA asks for it; without, {} would run", available.front());
  } else if (*chosen == "ref") {
    finding.state = FindingState::kWarning;
    finding.remedy =
        "the scalar reference is many times slower than a vector unit: see cpu features";
  }
  return finding;
}

Finding CheckAmx(const platform::CpuFeatures& features, const Status& request) {
  Finding finding = {"amx", FindingState::kOk, "tiles granted by the kernel", ""};
  if (!features.amx_tile) {
    finding.state = FindingState::kNotApplicable;
    finding.found = "this CPU or system has none";
  } else if (!request) {
    finding.state = FindingState::kWarning;
    finding.found = request.error().message();
    finding.remedy =
        "the next best kernels run instead. A container's seccomp profile must allow arch_prctl; "
        "gVisor and old "
        "kernels (before 5.16) never do";
  }
  return finding;
}

Finding CheckBandwidth(const Result<platform::Bandwidth>& bandwidth, int num_threads) {
  Finding finding = {"read bandwidth", FindingState::kOk, "", ""};
  if (!bandwidth) {
    finding.state = FindingState::kWarning;
    finding.found = bandwidth.error().message();
    finding.remedy = "free some memory and run this again";
    return finding;
  }
  finding.found =
      fmt::format("{:.1f} GB/s with 1 thread, {:.1f} GB/s with {} (measured over {} MiB)",
                  bandwidth->one_thread / 1e9, bandwidth->all_threads / 1e9, num_threads,
                  bandwidth->num_bytes >> 20);
  // All threads together below three quarters of one thread: they share what one could have, or
  // other work runs.
  if (num_threads > 1 && bandwidth->all_threads < 0.75 * bandwidth->one_thread) {
    finding.state = FindingState::kWarning;
    finding.remedy = "more threads read less than one: is other work running on this machine?";
  } else if (bandwidth->one_thread < kLeastOfACore ||
             bandwidth->all_threads < kLeastOfACore * std::min(num_threads, 4)) {
    finding.state = FindingState::kWarning;
    finding.remedy =
        "less than 4 GB/s a core: the machine seems busy; figures taken now say little";
  }
  return finding;
}

Finding CheckMemory(const Result<platform::SystemMemory>& memory) {
  Finding finding = {"memory", FindingState::kOk, "", ""};
  if (!memory) {
    finding.state = FindingState::kWarning;
    finding.found = memory.error().message();
    finding.remedy = "is /proc mounted here?";
    return finding;
  }
  finding.found =
      fmt::format("{} of {} available", Gibibytes(memory->available), Gibibytes(memory->total));
  if (memory->limit != 0)
    finding.found += fmt::format("; limited to {} by a cgroup", Gibibytes(memory->limit));
  constexpr uint64_t kLittle = uint64_t{2} << 30;
  if (memory->available < kLittle) {
    finding.state = FindingState::kWarning;
    finding.remedy =
        memory->limit != 0
            ? "enough for models/demo only; raise the container's limit (docker run --memory)"
            : "enough for models/demo only; close other programs";
  }
  return finding;
}

Finding CheckHugePages(const std::string& enabled) {
  Finding finding = {"transparent huge pages", FindingState::kOk, "", ""};
  finding.found = platform::ChosenWord(enabled);
  if (finding.found.empty()) {
    finding.state = FindingState::kNotApplicable;
    finding.found = "this kernel has none";
    return finding;
  }
  if (finding.found != "always" && finding.found != "madvise") {
    finding.state = FindingState::kWarning;
    finding.remedy =
        "weights stream faster from huge pages. As root: echo madvise > "
        "/sys/kernel/mm/transparent_hugepage/enabled";
  }
  return finding;
}

Finding CheckNuma(const Result<platform::Topology>& topology) {
  Finding finding = {"numa nodes", FindingState::kOk, "", ""};
  if (!topology) {
    finding.state = FindingState::kNotApplicable;
    finding.found = topology.error().message();
    return finding;
  }
  std::vector<std::string> nodes;
  std::string bind_lines;
  for (const platform::NumaNode& node : topology->numa_nodes) {
    if (node.cpus.empty()) {  // a GPU's memory, or an expander
      nodes.push_back(fmt::format("{}: no cpus, {}", node.id, Gibibytes(node.num_bytes)));
      continue;
    }
    nodes.push_back(fmt::format("{}: cpus {}, {}", node.id, platform::CpuListText(node.cpus),
                                Gibibytes(node.num_bytes)));
    bind_lines +=
        fmt::format("\nnumactl --cpunodebind={0} --membind={0} build/release/moebius ...", node.id);
  }
  finding.found = fmt::format("{} ({})", nodes.size(), fmt::join(nodes, "; "));
  if (nodes.size() > 1) finding.remedy = "one rank a node, each with its own memory:" + bind_lines;
  return finding;
}

std::vector<Finding> Diagnose(const DoctorOptions& given) {
  DoctorOptions options = given;
  if (!options.run) options.run = OutputOf;
  const platform::CpuFeatures& features = platform::DetectCpu();
  const Result<platform::Topology> topology = platform::DetectTopology();
  std::vector<Finding> findings = {
      CheckCpu(features, topology),
      CheckCpuFeatures(features),
      CheckKernelsOfThisMachine(),
      CheckAmx(features, platform::RequestAmx()),
  };
  if (options.measure_bandwidth) {
    const std::unique_ptr<platform::ThreadPool> pool = platform::ThreadPool::Create();
    findings.push_back(CheckBandwidth(platform::MeasureReadBandwidth(*pool), pool->num_threads()));
  }
  findings.push_back(CheckMemory(platform::ReadSystemMemory(options.root)));
  findings.push_back(
      CheckHugePages(ReadText(options.root + "/sys/kernel/mm/transparent_hugepage/enabled")));
  findings.push_back(CheckNuma(topology));
  for (Finding& finding : CheckMemories(options, topology)) findings.push_back(std::move(finding));
  for (Finding& finding : CheckGpus(options)) findings.push_back(std::move(finding));
  return findings;
}

void PrintFindings(const std::vector<Finding>& findings, std::FILE* out) {
  size_t width = 0;
  for (const Finding& finding : findings) width = std::max(width, finding.subject.size());
  int num_warnings = 0;
  for (const Finding& finding : findings) {
    const bool warning = finding.state == FindingState::kWarning;
    const char* state = warning ? "warn" : finding.state == FindingState::kOk ? "ok" : "n.a.";
    num_warnings += warning ? 1 : 0;
    fmt::print(out, "{:<6}{:<{}}  {}\n", state, finding.subject, width, finding.found);
    std::istringstream remedy(finding.remedy);
    for (std::string line; std::getline(remedy, line);) {
      fmt::print(out, "{:<6}{:<{}}  -> {}\n", "", "", width, line);
    }
  }
  fmt::print(out, "{}\n",
             num_warnings == 0   ? std::string("Nothing to fix.")
             : num_warnings == 1 ? std::string("1 thing to look at (warn).")
                                 : fmt::format("{} things to look at (warn).", num_warnings));
}

Status RunDoctor(std::FILE* out, const DoctorOptions& options) {
  PrintFindings(Diagnose(options), out);
  if (std::fflush(out) != 0) {
    return MakeError(ErrorCode::kUnavailable, "cannot write the report: {}", std::strerror(errno));
  }
  return {};
}

}  // namespace moebius::app
