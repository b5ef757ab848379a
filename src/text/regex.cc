#include "text/regex.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include "base/check.h"
#include "text/regex_syntax.h"
#include "text/unicode.h"
#include "text/unicode_stand_ins.h"

namespace moebius::text {
namespace {

constexpr size_t kJitStackStart = 32 << 10;
constexpr size_t kJitStackMax = 1 << 20;

// Bounds what a pattern from a file may cost at one place of a text.
constexpr uint32_t kMatchLimit = 10'000'000;
constexpr uint32_t kHeapLimitKib = 256 << 10;

struct FreePcre2 {
  void operator()(pcre2_match_data* p) const { pcre2_match_data_free(p); }
  void operator()(pcre2_match_context* p) const { pcre2_match_context_free(p); }
  void operator()(pcre2_jit_stack* p) const { pcre2_jit_stack_free(p); }
  void operator()(pcre2_compile_context* p) const { pcre2_compile_context_free(p); }
};

}  // namespace

struct RegexScratch::Impl {
  std::unique_ptr<pcre2_match_data, FreePcre2> match{pcre2_match_data_create(1, nullptr)};
  std::unique_ptr<pcre2_match_context, FreePcre2> context{pcre2_match_context_create(nullptr)};
  std::unique_ptr<pcre2_jit_stack, FreePcre2> stack{
      pcre2_jit_stack_create(kJitStackStart, kJitStackMax, nullptr)};
};

RegexScratch::RegexScratch() : impl_(std::make_unique<Impl>()) {
  MOEBIUS_CHECK(impl_->match != nullptr && impl_->context != nullptr);
  pcre2_set_match_limit(impl_->context.get(), kMatchLimit);
  pcre2_set_heap_limit(impl_->context.get(), kHeapLimitKib);
  if (impl_->stack != nullptr) {
    pcre2_jit_stack_assign(impl_->context.get(), nullptr, impl_->stack.get());
  }
}
RegexScratch::~RegexScratch() = default;
RegexScratch::RegexScratch(RegexScratch&&) noexcept = default;
RegexScratch& RegexScratch::operator=(RegexScratch&&) noexcept = default;

Result<Regex> Regex::Compile(std::string_view pattern) {
  MOEBIUS_ASSIGN(const std::string translated, TranslatePattern(pattern));
  std::unique_ptr<pcre2_compile_context, FreePcre2> context(pcre2_compile_context_create(nullptr));
  pcre2_set_newline(context.get(), PCRE2_NEWLINE_LF);
  int error = 0;
  PCRE2_SIZE where = 0;
  pcre2_code* code =
      pcre2_compile(reinterpret_cast<PCRE2_SPTR>(translated.data()), translated.size(),
                    PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE, &error, &where, context.get());
  if (code == nullptr) {
    char message[256] = "";
    pcre2_get_error_message(error, reinterpret_cast<PCRE2_UCHAR*>(message), sizeof(message));
    return MakeError(ErrorCode::kCorrupt, "regular expression '{}': {}", pattern, message);
  }
  Regex regex;
  regex.code_ = std::shared_ptr<const void>(code, [](const void* p) {
    pcre2_code_free(const_cast<pcre2_code*>(static_cast<const pcre2_code*>(p)));
  });
  pcre2_jit_compile(code, PCRE2_JIT_COMPLETE);  // without it, pcre2_match interprets
  return regex;
}

Regex Regex::Literal(std::string_view text) {
  MOEBIUS_CHECK(!text.empty());
  Regex regex;
  regex.literal_ = text;
  return regex;
}

void Regex::FindAll(std::string_view text, RegexScratch& scratch,
                    std::vector<Span>& matches) const {
  if (code_ == nullptr) {
    for (size_t pos = text.find(literal_); pos != std::string_view::npos;
         pos = text.find(literal_, pos + literal_.size())) {
      matches.push_back({pos, pos + literal_.size()});
    }
    return;
  }
  const auto* code = static_cast<const pcre2_code*>(code_.get());
  std::string copy;
  const char* searched = UseStandIns(text, copy) ? copy.data() : text.data();
  const auto* subject = reinterpret_cast<PCRE2_SPTR>(searched);
  const auto& impl = *scratch.impl_;
  const PCRE2_SIZE* ovector = pcre2_get_ovector_pointer(impl.match.get());
  size_t pos = 0;
  size_t last_end = std::string_view::npos;
  while (pos <= text.size()) {
    // The text is known to be valid: checking it at every search would be quadratic.
    int rc = pcre2_match(code, subject, text.size(), pos, PCRE2_NO_UTF_CHECK, impl.match.get(),
                         impl.context.get());
    if (rc == PCRE2_ERROR_JIT_STACKLIMIT) {
      rc = pcre2_match(code, subject, text.size(), pos, PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT,
                       impl.match.get(), impl.context.get());
    }
    if (rc < 0) break;
    const Span match = {ovector[0], ovector[1]};
    if (match.size() == 0 && match.end == last_end) {
      if (pos >= text.size()) break;
      pos += static_cast<size_t>(DecodeAt(text, pos).size);
      continue;
    }
    matches.push_back(match);
    pos = last_end = match.end;
  }
}

}  // namespace moebius::text
