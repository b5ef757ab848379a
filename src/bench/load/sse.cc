#include "bench/load/sse.h"

namespace moebius::load {

bool SseParser::Push(std::string_view bytes,
                     const std::function<void(std::string_view data)>& on_event) {
  if (failed_) return false;
  if (after_cr_ && !bytes.empty()) {
    if (bytes.front() == '\n') bytes.remove_prefix(1);
    after_cr_ = false;
  }
  while (!bytes.empty()) {
    const size_t end = bytes.find_first_of("\r\n");
    line_.append(bytes.substr(0, end));
    if (line_.size() + data_.size() > kMaxEventBytes) {
      failed_ = true;
      return false;
    }
    if (end == std::string_view::npos) break;
    const bool cr = bytes[end] == '\r';
    bytes.remove_prefix(end + 1);
    EndLine(on_event);
    if (!cr) continue;
    if (bytes.empty()) {
      after_cr_ = true;
    } else if (bytes.front() == '\n') {
      bytes.remove_prefix(1);
    }
  }
  return true;
}

void SseParser::EndLine(const std::function<void(std::string_view)>& on_event) {
  if (at_start_ && line_.starts_with("\xEF\xBB\xBF")) line_.erase(0, 3);
  at_start_ = false;
  if (line_.empty()) {
    if (has_data_) on_event(data_);
    data_.clear();
    has_data_ = false;
    return;
  }
  const size_t colon = line_.find(':');
  if (std::string_view(line_).substr(0, colon) == "data") {
    std::string_view value =
        colon == std::string::npos ? std::string_view() : std::string_view(line_).substr(colon + 1);
    if (value.starts_with(' ')) value.remove_prefix(1);
    if (has_data_) data_ += '\n';
    data_ += value;
    has_data_ = true;
  }
  line_.clear();
}

}  // namespace moebius::load
