// Tells a model's reasoning, <think>...</think> at the start of its output, from the answer behind
// it, in text that comes in pieces cut anywhere. Owned by one choice; one thread at a time.
//
// Nothing but the two tags is taken away: line ends beside them stay where they are.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace moebius::serve {

// What a prompt's end says of where the output begins.
enum class ThinkStart {
  kByOutput,  // reasoning if the output opens it
  kOpen,      // within reasoning: the prompt opened it
  kNever,     // no reasoning: the prompt closed it
};

class ReasoningSplitter {
 public:
  explicit ReasoningSplitter(ThinkStart start);

  // Appends what the next piece makes certain. What may be the beginning of a tag is kept back.
  void Push(std::string_view piece, std::string& reasoning, std::string& content);
  // Appends what was kept back.
  void Finish(std::string& reasoning, std::string& content);

  // Whether all that comes now is answer.
  bool is_content() const { return state_ == State::kContent; }
  // How many bytes of the output were reasoning or tags: so far, or in all once it has ended.
  size_t reasoning_bytes() const { return reasoning_bytes_; }

 private:
  enum class State { kStart, kReasoning, kContent };

  State state_;
  bool opened_;
  std::string held_;
  size_t reasoning_bytes_ = 0;
};

// The values of --reasoning-parser: "" (none), "auto", and the names of vLLM's parsers whose tags
// are these.
const std::vector<std::string>& ReasoningParserNames();

// Where the output of a prompt begins. `tail`: the prompt's text, or what of the last message an
// answer continues (`continues`). A parser named for a model that always reasons takes an output
// for reasoning although nothing opened it.
ThinkStart FindThinkStart(const std::string& parser, std::string_view tail, bool continues);

}  // namespace moebius::serve
