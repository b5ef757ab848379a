#include "serve/openai/reasoning.h"

#include <algorithm>

namespace moebius::serve {
namespace {

constexpr std::string_view kOpen = "<think>";
constexpr std::string_view kClose = "</think>";
constexpr std::string_view kSpaces = " \t\r\n";
// More of them in front of a tag than models write: what begins so is no reasoning.
constexpr size_t kMaxSpaces = 64;

// How many bytes at the end of `text` may be the beginning of `tag`.
size_t TagPrefixAtEnd(std::string_view text, std::string_view tag) {
  for (size_t size = std::min(text.size(), tag.size() - 1); size > 0; --size) {
    if (tag.starts_with(text.substr(text.size() - size))) return size;
  }
  return 0;
}

}  // namespace

ReasoningSplitter::ReasoningSplitter(ThinkStart start)
    : state_(start == ThinkStart::kNever ? State::kContent : State::kStart),
      opened_(start == ThinkStart::kOpen) {}

void ReasoningSplitter::Push(std::string_view piece, std::string& reasoning, std::string& content) {
  if (state_ == State::kContent) {
    content += piece;
    return;
  }
  held_ += piece;
  if (state_ == State::kStart) {
    const size_t begin = std::min(held_.find_first_not_of(kSpaces), held_.size());
    const std::string_view text = std::string_view(held_).substr(begin);
    const bool may_begin = text.size() < kOpen.size() && kOpen.starts_with(text);
    if (may_begin && begin <= kMaxSpaces) return;
    const bool is_tag = text.starts_with(kOpen);
    if (is_tag) {
      reasoning_bytes_ += begin + kOpen.size();
      held_.erase(0, begin + kOpen.size());
    }
    state_ = is_tag || opened_ ? State::kReasoning : State::kContent;
  }
  if (state_ == State::kReasoning) {
    const size_t close = held_.find(kClose);
    const size_t size =
        close != std::string::npos ? close : held_.size() - TagPrefixAtEnd(held_, kClose);
    reasoning.append(held_, 0, size);
    const size_t tag = close != std::string::npos ? kClose.size() : 0;
    reasoning_bytes_ += size + tag;
    held_.erase(0, size + tag);
    if (close == std::string::npos) return;
    state_ = State::kContent;
  }
  content += held_;
  held_.clear();
}

void ReasoningSplitter::Finish(std::string& reasoning, std::string& content) {
  const bool is_reasoning = state_ == State::kReasoning || (state_ == State::kStart && opened_);
  (is_reasoning ? reasoning : content) += held_;
  if (is_reasoning) reasoning_bytes_ += held_.size();
  held_.clear();
}

const std::vector<std::string>& ReasoningParserNames() {
  static const std::vector<std::string> kNames = {
      "",      "auto",    "deepseek_r1", "deepseek_v3", "ernie45", "glm45", "holo2",
      "hy_v3", "kimi_k2", "minimax_m2",  "nemotron_v3", "qwen3",   "step3"};
  return kNames;
}

ThinkStart FindThinkStart(const std::string& parser, std::string_view tail, bool continues) {
  if (parser.empty()) return ThinkStart::kNever;
  if (continues) {
    const size_t open = tail.rfind(kOpen);
    const size_t close = tail.rfind(kClose);
    if (close != tail.npos && (open == tail.npos || open < close)) return ThinkStart::kNever;
    if (open != tail.npos) return ThinkStart::kOpen;
    return tail.empty() ? ThinkStart::kByOutput : ThinkStart::kNever;
  }
  tail = tail.substr(0, tail.find_last_not_of(kSpaces) + 1);
  if (tail.ends_with(kOpen)) return ThinkStart::kOpen;
  if (tail.ends_with(kClose)) return ThinkStart::kNever;
  return parser == "deepseek_r1" ? ThinkStart::kOpen : ThinkStart::kByOutput;
}

}  // namespace moebius::serve
