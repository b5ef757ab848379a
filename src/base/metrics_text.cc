#include "base/metrics_text.h"

#include <array>
#include <charconv>
#include <cmath>

namespace moebius {
namespace {

constexpr size_t kFirstReservation = 32 << 10;

// In HELP a backslash and a line feed are escaped, in a label's value also the quote.
void AppendEscaped(std::string_view value, bool quote, std::string& out) {
  for (const char c : value) {
    if (c == '\\') {
      out += "\\\\";
    } else if (c == '\n') {
      out += "\\n";
    } else if (c == '"' && quote) {
      out += "\\\"";
    } else {
      out += c;
    }
  }
}

void AppendLabel(MetricsText::Label label, std::string& out) {
  if (!out.empty() && out.back() != '{') out += ',';
  out += label.first;
  out += "=\"";
  AppendEscaped(label.second, /*quote=*/true, out);
  out += '"';
}

std::string_view NonFinite(double value) {
  if (std::isnan(value)) return "NaN";
  return value > 0 ? "+Inf" : "-Inf";
}

void AppendNumber(double value, std::string& out) {
  if (!std::isfinite(value)) {
    out += NonFinite(value);
    return;
  }
  std::array<char, 32> digits;
  const auto end = std::to_chars(digits.data(), digits.data() + digits.size(), value);
  out.append(digits.data(), end.ptr);
}

void AppendNumber(int64_t value, std::string& out) {
  std::array<char, 24> digits;
  const auto end = std::to_chars(digits.data(), digits.data() + digits.size(), value);
  out.append(digits.data(), end.ptr);
}

// A bucket's bound as Prometheus itself and Python's client write it ("1.0", "0.005", "1e+06"): le
// is compared as text, and recorded queries should find the series of both.
std::string Bound(double value) {
  constexpr double kSmallest = 1e-4;
  constexpr double kLargest = 1e6;
  std::string out;
  if (value < kSmallest || value >= kLargest) {
    AppendNumber(value, out);
    return out;
  }
  std::array<char, 64> digits;
  const auto end =
      std::to_chars(digits.data(), digits.data() + digits.size(), value, std::chars_format::fixed);
  out.append(digits.data(), end.ptr);
  if (out.find('.') == std::string::npos) out += ".0";
  return out;
}

}  // namespace

MetricsText::MetricsText(Labels common) {
  text_.reserve(kFirstReservation);
  for (const Label& label : common) AppendLabel(label, common_);
}

void MetricsText::Family(std::string_view name, std::string_view type, std::string_view help) {
  name_ = name;
  text_.append("# HELP ").append(name).append(1, ' ');
  AppendEscaped(help, /*quote=*/false, text_);
  text_.append("\n# TYPE ").append(name).append(1, ' ').append(type).append(1, '\n');
}

void MetricsText::BeginLine(std::string_view suffix, Labels labels, Label last) {
  text_.append(name_).append(suffix);
  if (!common_.empty() || labels.size() != 0 || !last.first.empty()) {
    text_ += '{';
    text_ += common_;
    for (const Label& label : labels) AppendLabel(label, text_);
    if (!last.first.empty()) AppendLabel(last, text_);
    text_ += '}';
  }
  text_ += ' ';
}

void MetricsText::Line(std::string_view suffix, Labels labels, Label last, int64_t value) {
  BeginLine(suffix, labels, last);
  AppendNumber(value, text_);
  text_ += '\n';
}

void MetricsText::Line(std::string_view suffix, Labels labels, Label last, double value) {
  BeginLine(suffix, labels, last);
  AppendNumber(value, text_);
  text_ += '\n';
}

void MetricsText::Buckets(std::span<const double> bounds, std::span<const int64_t> counts,
                          double sum, Labels labels) {
  int64_t below = 0;
  for (size_t i = 0; i < bounds.size(); ++i) {
    below += counts[i];
    Line("_bucket", labels, {"le", Bound(bounds[i])}, below);
  }
  below += counts[bounds.size()];
  Line("_bucket", labels, {"le", "+Inf"}, below);
  Line("_sum", labels, {}, sum);
  Line("_count", labels, {}, below);
}

}  // namespace moebius
