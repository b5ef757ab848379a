// Server-sent events out of a byte stream that is cut anywhere: lines end in LF, CRLF or CR, `data`
// fields of an event are joined by newlines, comments and other fields are left out, a blank line
// ends an event (https://html.spec.whatwg.org, "event stream interpretation"). One a stream, one
// thread.
#pragma once

#include <cstddef>
#include <functional>
#include <string>
#include <string_view>

namespace moebius::load {

class SseParser {
 public:
  static constexpr size_t kMaxEventBytes = 16 << 20;

  // `on_event` gets the data of each whole event. False: an event is longer than kMaxEventBytes;
  // the parser takes nothing more then.
  bool Push(std::string_view bytes, const std::function<void(std::string_view data)>& on_event);

  // Bytes of an event that has not ended.
  bool HasRest() const { return !line_.empty() || has_data_; }

 private:
  void EndLine(const std::function<void(std::string_view)>& on_event);

  std::string line_;
  std::string data_;
  bool has_data_ = false;
  bool after_cr_ = false;  // an LF that comes next belongs to the CR before it
  bool at_start_ = true;   // a byte-order mark may come
  bool failed_ = false;
};

}  // namespace moebius::load
