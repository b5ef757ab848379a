// For tests: the spans of a trace, read back.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <fstream>
#include <string>
#include <vector>

namespace moebius::rank::testing {

struct Span {
  std::string name;
  int rank = -1;
  double begin = 0;  // microseconds
  double end = 0;
  int64_t step = -1;  // of all ranks
  int64_t rows = -1;
  bool Meets(const Span& other) const { return begin < other.end && other.begin < end; }
  bool Contains(const Span& other) const { return begin <= other.begin && other.end <= end; }
};

inline double NumberAfter(const std::string& line, const std::string& key, double none) {
  const size_t at = line.find("\"" + key + "\":");
  return at == std::string::npos ? none : std::atof(line.c_str() + at + key.size() + 3);
}

inline std::vector<Span> ReadTrace(const std::string& path, const std::string& name) {
  std::ifstream file(path);
  std::vector<Span> spans;
  for (std::string line; std::getline(file, line);) {
    if (!line.starts_with("{\"name\":\"" + name + "\",\"ph\":\"X\"")) continue;
    Span span;
    span.name = name;
    span.rank = static_cast<int>(NumberAfter(line, "pid", -1));
    span.begin = NumberAfter(line, "ts", 0);
    span.end = span.begin + NumberAfter(line, "dur", 0);
    span.step = static_cast<int64_t>(NumberAfter(line, "step", -1));
    span.rows = static_cast<int64_t>(NumberAfter(line, "rows", -1));
    spans.push_back(span);
  }
  return spans;
}

}  // namespace moebius::rank::testing
