#include "frontend/fake_engine_test.h"

#include <chrono>
#include <nlohmann/json.hpp>
#include <utility>

#include "base/check.h"

namespace moebius::frontend {
namespace {

std::string CodePoint(int code) {
  if (code < 0x80) return std::string(1, static_cast<char>(code));
  return {static_cast<char>(0xc0 | (code >> 6)), static_cast<char>(0x80 | (code & 0x3f))};
}

// GPT-2's table: printable Latin-1 stands for itself, the other bytes for code points from 256 on.
std::string Spelling(int byte) {
  const auto printable = [](int b) {
    return (b >= '!' && b <= '~') || (b >= 0xa1 && b <= 0xac) || (b >= 0xae && b <= 0xff);
  };
  if (printable(byte)) return CodePoint(byte);
  int rank = 0;
  for (int b = 0; b < byte; ++b) rank += printable(b) ? 0 : 1;
  return CodePoint(256 + rank);
}

}  // namespace

std::unique_ptr<text::Tokenizer> MakeByteTokenizer() {
  nlohmann::json vocab;
  for (int byte = 0; byte < 256; ++byte) vocab[Spelling(byte)] = byte;
  const nlohmann::json byte_level = {{"type", "ByteLevel"},
                                     {"add_prefix_space", false},
                                     {"trim_offsets", true},
                                     {"use_regex", false}};
  const nlohmann::json end = {{"id", kEndToken}, {"content", "<end>"}, {"single_word", false},
                              {"lstrip", false}, {"rstrip", false},    {"normalized", false},
                              {"special", true}};
  const nlohmann::json file = {
      {"version", "1.0"},
      {"added_tokens", nlohmann::json::array({end})},
      {"normalizer", nullptr},
      {"pre_tokenizer", byte_level},
      {"post_processor", nullptr},
      {"decoder", byte_level},
      {"model", {{"type", "BPE"}, {"vocab", vocab}, {"merges", nlohmann::json::array()}}}};
  auto tokenizer = text::Tokenizer::Parse(file.dump(), "");
  MOEBIUS_CHECK(tokenizer.has_value());
  return std::move(*tokenizer);
}

std::vector<TokenId> Ids(const std::string& text) {
  std::vector<TokenId> ids;
  for (const char c : text) ids.push_back(static_cast<unsigned char>(c));
  return ids;
}

FakeEngine::FakeEngine(Script script) : script_(std::move(script)) {
  limits_.vocab_size = 257;
  limits_.max_model_len = 1000;
  limits_.max_num_seqs = 8;
  limits_.eos_token_ids = {kEndToken};
}

FakeEngine::~FakeEngine() {
  for (std::thread& thread : threads_) thread.join();
}

Result<engine::RequestId> FakeEngine::Submit(engine::RequestInput input, engine::TokenSink sink) {
  if (input.prompt.empty()) return MakeError(ErrorCode::kInvalidArgument, "prompt is empty");
  const std::lock_guard lock(mutex_);
  const engine::RequestId id(next_id_++);
  const auto num_prompt_tokens = static_cast<int64_t>(input.prompt.size());
  last_prompt_ = std::move(input.prompt);
  threads_.emplace_back(
      [this, id, num_prompt_tokens, sink = std::move(sink)] { Play(id, sink, num_prompt_tokens); });
  return id;
}

void FakeEngine::Play(engine::RequestId id, const engine::TokenSink& sink,
                      int64_t num_prompt_tokens) {
  engine::Usage usage;
  usage.num_prompt_tokens = num_prompt_tokens;
  size_t next = 0;
  int late = script_.late_tokens;
  const auto end = [&](engine::FinishReason reason, const Error* error) {
    engine::TokenEvent event;
    event.request = id;
    event.finish = reason;
    event.error = error;
    event.usage = usage;
    sink(event);
  };
  while (script_.endless || next < script_.tokens.size()) {
    const auto cancel = CancelOf(id);
    if (cancel && late-- <= 0) return end(*cancel, nullptr);
    std::vector<TokenId> tokens;
    while (tokens.size() < script_.tokens_per_event &&
           (script_.endless || next < script_.tokens.size())) {
      tokens.push_back(script_.tokens[next++ % script_.tokens.size()]);
    }
    usage.num_output_tokens += static_cast<int64_t>(tokens.size());
    engine::TokenEvent event;
    event.request = id;
    event.tokens = tokens;
    event.usage = usage;
    const bool last = !script_.endless && next == script_.tokens.size() &&
                      script_.finish == engine::FinishReason::kStop;
    if (last) {
      event.finish = script_.finish;
      event.stop_token = tokens.back();
    }
    sink(event);
    ++num_events_;
    if (last) return;
    if (script_.endless) std::this_thread::sleep_for(std::chrono::microseconds(50));
  }
  if (script_.finish == engine::FinishReason::kError && !script_.error) {
    // An engine that died without a word: only Health tells.
    while (!unhealthy_) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    return;
  }
  end(script_.finish, script_.error ? &*script_.error : nullptr);
}

void FakeEngine::Cancel(engine::RequestId request, engine::FinishReason reason) {
  const std::lock_guard lock(mutex_);
  cancelled_.push_back({request, reason});
}

std::optional<engine::FinishReason> FakeEngine::CancelOf(engine::RequestId id) const {
  const std::lock_guard lock(mutex_);
  for (const Cancelled& entry : cancelled_) {
    if (entry.request == id) return entry.reason;
  }
  return std::nullopt;
}

Status FakeEngine::Health() const {
  if (unhealthy_) return MakeError(ErrorCode::kUnavailable, "the engine is unhealthy");
  return {};
}

std::vector<TokenId> FakeEngine::last_prompt() const {
  const std::lock_guard lock(mutex_);
  return last_prompt_;
}

std::vector<engine::FinishReason> FakeEngine::cancels() const {
  const std::lock_guard lock(mutex_);
  std::vector<engine::FinishReason> reasons;
  for (const Cancelled& entry : cancelled_) reasons.push_back(entry.reason);
  return reasons;
}

}  // namespace moebius::frontend
