#include "base/trace.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <iterator>

namespace moebius {
namespace {

constexpr std::string_view kBegin = "[\n";
// The last event, behind which there is no comma.
constexpr std::string_view kEnd = R"({"name":"the end","ph":"i","s":"g","pid":0,"tid":1,"ts":)";

double Microseconds(Trace::Clock::duration time) {
  return std::chrono::duration<double, std::micro>(time).count();
}

// All at once, or what is left of it: a file takes it whole but when its disk is full.
void Write(int descriptor, std::string_view text) {
  while (!text.empty()) {
    const ssize_t count = write(descriptor, text.data(), text.size());
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) return;
    text.remove_prefix(static_cast<size_t>(count));
  }
}

std::string_view NameOf(TraceThread thread) {
  return thread == TraceThread::kEngine ? "engine" : "device";
}

}  // namespace

Result<TraceFile> TraceFile::Create(const std::string& path) {
  const int descriptor =
      open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, 0666);
  if (descriptor < 0) {
    return MakeError(ErrorCode::kInvalidArgument, "cannot write the trace {}: {}", path,
                     std::strerror(errno));
  }
  Write(descriptor, kBegin);
  return TraceFile(descriptor);
}

TraceFile::~TraceFile() {
  if (descriptor_ < 0) return;
  const double now = Microseconds(Trace::Clock::now().time_since_epoch());
  Write(descriptor_, fmt::format("{}{:.3f}}}\n]\n", kEnd, now));
  close(descriptor_);
}

Trace::Trace(const TraceTarget& target, TraceThread thread) : target_(target), thread_(thread) {
  if (!is_on()) return;
  const auto name = [&](std::string_view what, int tid, const std::string& value) {
    fmt::format_to(std::back_inserter(lines_),
                   R"({{"name":"{}","ph":"M","pid":{},"tid":{},"args":{{"name":"{}"}}}},)"
                   "\n",
                   what, target_.rank, tid, value);
  };
  name("process_name", 0, fmt::format("rank {}", target_.rank));
  name("thread_name", static_cast<int>(thread_), std::string(NameOf(thread_)));
  fmt::format_to(std::back_inserter(lines_),
                 R"({{"name":"process_sort_index","ph":"M","pid":{},"args":{{"sort_index":{}}}}},)"
                 "\n",
                 target_.rank, target_.rank);
}

void Trace::Begin(std::string_view name, Clock::time_point begin) {
  fmt::format_to(std::back_inserter(lines_),
                 R"({{"name":"{}","ph":"X","pid":{},"tid":{},"ts":{:.3f},"dur":{:.3f})", name,
                 target_.rank, static_cast<int>(thread_), Microseconds(begin.time_since_epoch()),
                 Microseconds(Clock::now() - begin));
}

void Trace::Add(std::string_view name, Clock::time_point begin, int64_t plan, int64_t rows) {
  if (!is_on()) return;
  Begin(name, begin);
  if (plan >= 0) {
    fmt::format_to(std::back_inserter(lines_), R"(,"args":{{"plan":{})", plan);
    if (rows >= 0) fmt::format_to(std::back_inserter(lines_), R"(,"rows":{})", rows);
    lines_ += '}';
  }
  lines_ += "},\n";
}

void Trace::AddPass(Clock::time_point begin, int64_t step, int64_t plan, int64_t rows,
                    std::initializer_list<std::pair<std::string_view, double>> parts) {
  if (!is_on()) return;
  Begin("pass", begin);
  fmt::format_to(std::back_inserter(lines_), R"(,"args":{{"step":{},"plan":{},"rows":{})", step,
                 plan, rows);
  for (const auto& [name, seconds] : parts) {
    fmt::format_to(std::back_inserter(lines_), R"(,"{}_us":{:.1f})", name, seconds * 1e6);
  }
  lines_ += "}},\n";
}

void Trace::Flush() {
  if (lines_.empty()) return;
  Write(target_.descriptor, lines_);
  lines_.clear();
}

}  // namespace moebius
