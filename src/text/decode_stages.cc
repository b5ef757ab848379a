#include "text/decode_stages.h"

#include <charconv>

#include "text/byte_level.h"
#include "text/normalizer.h"
#include "text/unicode.h"

namespace moebius::text {
namespace {

class JoinStage : public DecodeStage {
 public:
  void Push(std::string_view text, bool starts_token) override {
    if (starts_token && !first_) next_->Push(" ", false);
    next_->Push(text, first_);
    first_ = false;
  }

 private:
  bool first_ = true;
};

class ByteLevelStage : public DecodeStage {
 public:
  void Push(std::string_view text, bool) override {
    AppendCharBytes(bytes_, text);
    Emit();
  }
  void Finish() override {
    if (!bytes_.empty()) next_->Push(kReplacementChar, first_);
    next_->Finish();
  }

 private:
  void Emit() {
    std::string text;
    std::string_view rest = bytes_;
    while (!rest.empty()) {
      const size_t valid = ValidPrefix(rest);
      text += rest.substr(0, valid);
      rest.remove_prefix(valid);
      if (rest.empty()) break;
      const Utf8Unit unit = ScanUtf8(rest);
      if (unit.kind == Utf8Unit::kTruncated) break;
      text += kReplacementChar;
      rest.remove_prefix(static_cast<size_t>(unit.size));
    }
    bytes_.erase(0, bytes_.size() - rest.size());
    if (text.empty()) return;
    next_->Push(text, first_);
    first_ = false;
  }

  std::string bytes_;  // an unfinished character
  bool first_ = true;
};

class MetaspaceStage : public DecodeStage {
 public:
  MetaspaceStage(std::string_view character, bool strips_first)
      : character_(character), strip_(strips_first) {}

  void Push(std::string_view text, bool starts_token) override {
    if (starts_token && !first_) strip_ = false;
    first_ = false;
    std::string out;
    for (size_t pos = 0; pos < text.size();) {
      const auto size = static_cast<size_t>(DecodeAt(text, pos).size);
      const std::string_view c = text.substr(pos, size);
      if (c != character_) {
        out += c;
      } else if (!strip_) {
        out += ' ';
      }
      pos += size;
    }
    next_->Push(out, starts_token);
  }

 private:
  std::string character_;
  bool strip_;
  bool first_ = true;
};

class ReplaceStage : public DecodeStage {
 public:
  ReplaceStage(const Regex& pattern, std::string_view content)
      : pattern_(pattern), content_(content) {}

  void Push(std::string_view text, bool starts_token) override {
    next_->Push(ReplaceAll(text, pattern_, content_, scratch_), starts_token);
  }

 private:
  Regex pattern_;
  std::string content_;
  RegexScratch scratch_;
};

class ByteFallbackStage : public DecodeStage {
 public:
  void Push(std::string_view text, bool) override {
    if (const std::optional<char> byte = FallbackByte(text)) {
      run_ += *byte;
      return;
    }
    Flush();
    next_->Push(text, true);
  }
  void Finish() override {
    Flush();
    next_->Finish();
  }

 private:
  void Flush() {
    if (run_.empty()) return;
    if (ValidPrefix(run_) == run_.size()) {
      next_->Push(run_, true);
    } else {
      for (size_t i = 0; i < run_.size(); ++i) next_->Push(kReplacementChar, true);
    }
    run_.clear();
  }

  std::string run_;
};

class FuseStage : public DecodeStage {
 public:
  void Push(std::string_view text, bool) override {
    next_->Push(text, first_);
    first_ = false;
  }

 private:
  bool first_ = true;
};

class StripStage : public DecodeStage {
 public:
  StripStage(std::string_view character, int64_t start, int64_t stop)
      : character_(character), start_(start), stop_(stop) {}

  void Push(std::string_view text, bool starts_token) override {
    if (starts_token) {
      to_strip_ = start_;
      num_held_ = 0;
    }
    std::string out;
    for (size_t pos = 0; pos < text.size();) {
      const auto size = static_cast<size_t>(DecodeAt(text, pos).size);
      const std::string_view c = text.substr(pos, size);
      pos += size;
      if (c != character_) {
        for (; num_held_ > 0; --num_held_) out += character_;
        to_strip_ = 0;
        out += c;
      } else if (to_strip_ > 0) {
        --to_strip_;
      } else if (num_held_ < stop_) {
        ++num_held_;
      } else {
        out += c;  // one more is held already
      }
    }
    next_->Push(out, starts_token);
  }

 private:
  std::string character_;
  int64_t start_;
  int64_t stop_;
  int64_t to_strip_ = 0;
  int64_t num_held_ = 0;  // trailing characters that go if the token ends here
};

}  // namespace

std::unique_ptr<DecodeStage> NewJoinStage() { return std::make_unique<JoinStage>(); }

std::unique_ptr<DecodeStage> NewByteLevelStage() { return std::make_unique<ByteLevelStage>(); }

std::unique_ptr<DecodeStage> NewMetaspaceStage(std::string_view character, bool strips_first) {
  return std::make_unique<MetaspaceStage>(character, strips_first);
}

std::unique_ptr<DecodeStage> NewReplaceStage(const Regex& pattern, std::string_view content) {
  return std::make_unique<ReplaceStage>(pattern, content);
}

std::unique_ptr<DecodeStage> NewByteFallbackStage() {
  return std::make_unique<ByteFallbackStage>();
}

std::unique_ptr<DecodeStage> NewFuseStage() { return std::make_unique<FuseStage>(); }

std::unique_ptr<DecodeStage> NewStripStage(std::string_view character, int64_t start,
                                           int64_t stop) {
  return std::make_unique<StripStage>(character, start, stop);
}

std::optional<char> FallbackByte(std::string_view token) {
  if (token.size() != 6 || !token.starts_with("<0x") || !token.ends_with('>')) return std::nullopt;
  const std::string_view digits = token.substr(3, 2);
  unsigned value = 0;
  const auto [end, error] =
      std::from_chars(digits.data(), digits.data() + digits.size(), value, 16);
  if (error != std::errc() || end != digits.data() + digits.size()) return std::nullopt;
  return static_cast<char>(value);
}

}  // namespace moebius::text
