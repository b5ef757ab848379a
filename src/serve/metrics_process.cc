#include <sys/resource.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <optional>
#include <sstream>
#include <string>

#include "serve/metrics_families.h"

namespace moebius::serve {
namespace {

// What proc(5) says in /proc/self/stat, in its units.
struct ProcStat {
  int64_t user_ticks = 0;
  int64_t system_ticks = 0;
  int64_t num_threads = 0;
  int64_t start_ticks = 0;  // after boot
  int64_t virtual_bytes = 0;
  int64_t resident_pages = 0;
};

std::optional<ProcStat> ReadProcStat() {
  std::ifstream file("/proc/self/stat");
  std::string line;
  if (!std::getline(file, line)) return std::nullopt;
  // The second field is the program's name in parentheses and may hold anything.
  const size_t end_of_name = line.rfind(')');
  if (end_of_name == std::string::npos) return std::nullopt;
  std::istringstream fields(line.substr(end_of_name + 1));
  std::string skipped;
  ProcStat stat;
  for (int field = 3; field <= 13; ++field) fields >> skipped;
  fields >> stat.user_ticks >> stat.system_ticks;
  for (int field = 16; field <= 19; ++field) fields >> skipped;
  fields >> stat.num_threads >> skipped >> stat.start_ticks >> stat.virtual_bytes >>
      stat.resident_pages;
  if (!fields) return std::nullopt;
  return stat;
}

// Seconds since the epoch at which this machine was started.
std::optional<double> ReadBootTime() {
  std::ifstream file("/proc/stat");
  for (std::string line; std::getline(file, line);) {
    if (line.starts_with("btime ")) return std::stod(line.substr(6));
  }
  return std::nullopt;
}

std::optional<int64_t> CountOpenFiles() {
  std::error_code error;
  const std::filesystem::directory_iterator files("/proc/self/fd", error);
  if (error) return std::nullopt;
  // One of them is the folder being listed.
  return std::distance(begin(files), end(files)) - 1;
}

}  // namespace

void AppendProcessMetrics(MetricsText& text) {
  if (const auto stat = ReadProcStat()) {
    const auto ticks = static_cast<double>(::sysconf(_SC_CLK_TCK));
    text.Counter("process_cpu_seconds_total", "User and system time.",
                 static_cast<double>(stat->user_ticks + stat->system_ticks) / ticks);
    text.Gauge("process_threads", "Threads.", stat->num_threads);
    text.Gauge("process_virtual_memory_bytes", "Address space in use.", stat->virtual_bytes);
    text.Gauge("process_resident_memory_bytes", "Memory in use.",
               stat->resident_pages * ::sysconf(_SC_PAGESIZE));
    if (const auto boot = ReadBootTime()) {
      text.Gauge("process_start_time_seconds", "When it was started, since the epoch.",
                 *boot + static_cast<double>(stat->start_ticks) / ticks);
    }
  }
  if (const auto open = CountOpenFiles()) {
    text.Gauge("process_open_fds", "File descriptors open.", *open);
  }
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY) {
    text.Gauge("process_max_fds", "File descriptors it may have.", limit.rlim_cur);
  }
}

}  // namespace moebius::serve
