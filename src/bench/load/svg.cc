#include "bench/load/svg.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "bench/load/stats.h"

namespace moebius::load {
namespace {

constexpr double kWidth = 760;
constexpr double kHeight = 260;
constexpr double kLeft = 70;
constexpr double kRight = 16;
constexpr double kTop = 34;
constexpr double kBottom = 42;
constexpr int kNumColours = 6;

// A step of 1, 2 or 5 times a power of ten that divides `range` in about five.
double NiceStep(double range) {
  if (!(range > 0)) return 1;
  const double raw = range / 5;
  const double power = std::pow(10, std::floor(std::log10(raw)));
  for (const double factor : {1.0, 2.0, 5.0}) {
    if (raw <= factor * power) return factor * power;
  }
  return 10 * power;
}

}  // namespace

double Plot::X(double value) const {
  return kLeft + (value - x_low_) / (x_high_ - x_low_) * (kWidth - kLeft - kRight);
}
double Plot::Y(double value) const {
  return kHeight - kBottom - value / y_high_ * (kHeight - kTop - kBottom);
}

std::string Plot::Draw(const Series& series, size_t index) const {
  const std::string colour = fmt::format("s{}", index % kNumColours);
  std::string out;
  if (series.kind == Kind::kBars) {
    for (const auto& [x, y] : series.points) {
      out += fmt::format(
          "<rect class=\"{} bar\" x=\"{:.1f}\" y=\"{:.1f}\" width=\"{:.2f}\" height=\"{:.1f}\"/>\n",
          colour, X(x), Y(y), std::max(0.5, X(x + bar_width_) - X(x) - 0.5), Y(0) - Y(y));
    }
    return out;
  }
  out += fmt::format("<polyline class=\"{} line\" points=\"", colour);
  for (const auto& [x, y] : series.points) out += fmt::format("{:.1f},{:.1f} ", X(x), Y(y));
  out += "\"/>\n";
  for (size_t i = 0; series.kind == Kind::kDots && i < series.points.size(); ++i) {
    const auto& [x, y] = series.points[i];
    out += fmt::format("<circle class=\"{} dot\" cx=\"{:.1f}\" cy=\"{:.1f}\" r=\"3.5\"/>\n", colour,
                       X(x), Y(y));
    if (i >= series.labels.size()) continue;
    out += fmt::format("<text class=\"soft\" x=\"{:.1f}\" y=\"{:.1f}\">{}</text>\n", X(x) + 6,
                       Y(y) - 6, EscapeXml(series.labels[i]));
  }
  return out;
}

std::string Plot::Render() const {
  x_low_ = INFINITY;
  x_high_ = -INFINITY;
  y_high_ = 0;
  for (const Series& series : series_) {
    for (const auto& [x, y] : series.points) {
      x_low_ = std::min(x_low_, x);
      x_high_ = std::max(x_high_, series.kind == Kind::kBars ? x + bar_width_ : x);
      y_high_ = std::max(y_high_, y);
    }
  }
  if (!(x_low_ <= x_high_)) return fmt::format("<p>{}: nothing to draw</p>\n", EscapeXml(title_));
  if (x_low_ > 0 && x_low_ < 0.5 * x_high_) x_low_ = 0;
  if (x_low_ == x_high_) x_high_ = x_low_ + 1;
  const double y_step = NiceStep(y_high_);
  y_high_ = std::max(y_step, std::ceil(y_high_ / y_step) * y_step);

  std::string out = fmt::format(
      "<svg viewBox=\"0 0 {} {}\" role=\"img\" aria-label=\"{}\">\n"
      "<text class=\"title\" x=\"{}\" y=\"16\">{}</text>\n",
      kWidth, kHeight, EscapeXml(title_), kLeft, EscapeXml(title_));
  if (band_) {
    const double from = std::clamp(band_->first, x_low_, x_high_);
    const double to = std::clamp(band_->second, x_low_, x_high_);
    out += fmt::format(
        "<rect class=\"band\" x=\"{:.1f}\" y=\"{}\" width=\"{:.1f}\" height=\"{:.1f}\"/>\n",
        X(from), kTop, X(to) - X(from), kHeight - kTop - kBottom);
  }
  for (double y = 0; y <= y_high_ * 1.0001; y += y_step) {
    out += fmt::format(
        "<line class=\"grid\" x1=\"{}\" x2=\"{}\" y1=\"{:.1f}\" y2=\"{:.1f}\"/>"
        "<text class=\"soft\" x=\"{}\" y=\"{:.1f}\" text-anchor=\"end\">{:g}</text>\n",
        kLeft, kWidth - kRight, Y(y), Y(y), kLeft - 6, Y(y) + 4, y);
  }
  const double x_step = NiceStep(x_high_ - x_low_);
  for (double x = std::ceil(x_low_ / x_step) * x_step; x <= x_high_ + x_step * 1e-6; x += x_step) {
    out += fmt::format(
        "<text class=\"soft\" x=\"{:.1f}\" y=\"{}\" text-anchor=\"middle\">{:g}</text>\n", X(x),
        kHeight - kBottom + 16, std::abs(x) < x_step * 1e-6 ? 0 : x);
  }
  out += fmt::format(
      "<text class=\"soft\" x=\"{}\" y=\"{}\" text-anchor=\"end\">{}</text>\n"
      "<text class=\"soft\" x=\"6\" y=\"{}\">{}</text>\n",
      kWidth - kRight, kHeight - 8, EscapeXml(x_label_), kTop - 6, EscapeXml(y_label_));
  std::string legend;
  for (size_t i = 0; i < series_.size(); ++i) {
    out += Draw(series_[i], i);
    if (series_[i].name.empty()) continue;
    legend +=
        fmt::format("<span class=\"s{}\">{}</span>\n", i % kNumColours, EscapeXml(series_[i].name));
  }
  out += "</svg>\n";
  if (!legend.empty()) out += "<p class=\"legend\">" + legend + "</p>\n";
  return out;
}

Bins BinsOf(std::vector<double> samples, int num_bins) {
  Bins bins;
  if (samples.empty()) return bins;
  std::sort(samples.begin(), samples.end());
  const double low = samples.front();
  const double high = Percentile(samples, 99.5);
  bins.width = high > low ? (high - low) / num_bins : std::max(low * 0.01, 1e-6);
  std::vector<double> counts(static_cast<size_t>(num_bins));
  for (const double sample : samples) {
    if (sample > high) break;
    const auto at = static_cast<size_t>((sample - low) / bins.width);
    ++counts[std::min(at, counts.size() - 1)];
  }
  for (size_t i = 0; i < counts.size(); ++i) {
    bins.points.emplace_back(low + static_cast<double>(i) * bins.width, counts[i]);
  }
  return bins;
}

std::string EscapeXml(const std::string& text) {
  std::string out;
  for (const char c : text) {
    if (c == '&') {
      out += "&amp;";
    } else if (c == '<') {
      out += "&lt;";
    } else if (c == '>') {
      out += "&gt;";
    } else if (c == '"') {
      out += "&quot;";
    } else {
      out += c;
    }
  }
  return out;
}

const char* PageStyle() {
  return R"(
:root { --ink: #1c2024; --soft: #60646c; --line: #d9dbe0; --page: #fcfcfd; --box: #f3f4f6;
  --s0: #2563a8; --s1: #b4540a; --s2: #2e7d4f; --s3: #8a3ea8; --s4: #a8323e; --s5: #4a7a8c; }
@media (prefers-color-scheme: dark) { :root { --ink: #edeef0; --soft: #a5a9b2; --line: #3a3d44;
  --page: #16181c; --box: #212429; --s0: #6aa5e8; --s1: #e8944a; --s2: #6cc08e; --s3: #c28ae0;
  --s4: #e87a84; --s5: #8abccd; } }
body { margin: 2rem auto; max-width: 60rem; padding: 0 1.25rem; color: var(--ink);
  background: var(--page); font: 15px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.5rem; margin: 0 0 .5rem; } h2 { font-size: 1.05rem; margin: 2rem 0 .5rem; }
p { margin: .3rem 0; } p.head, footer { color: var(--soft); } div.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .7rem; border-bottom: 1px solid var(--line); text-align: right; }
th { color: var(--soft); font-weight: 600; } .left { text-align: left; }
td.pass { color: var(--s2); } td.flag, td.failed { color: var(--s4); } td.soft { color: var(--soft); }
p.legend { text-align: right; margin-top: -.8rem; font-size: 12px; } .legend span { margin-left: 1rem; }
.legend .s0 { color: var(--s0); } .legend .s1 { color: var(--s1); } .legend .s2 { color: var(--s2); }
.legend .s3 { color: var(--s3); } .legend .s4 { color: var(--s4); } .legend .s5 { color: var(--s5); }
td.left { white-space: nowrap; }
pre { background: var(--box); padding: .7rem 1rem; white-space: pre-wrap; border-radius: 6px; }
svg { display: block; width: 100%; height: auto; margin: 1rem 0; }
svg text { fill: var(--ink); font-size: 12px; } svg text.title { font-weight: 600; }
svg text.soft { fill: var(--soft); font-size: 11px; } svg .grid { stroke: var(--line); }
svg .band { fill: var(--s2); opacity: .13; } svg .line { fill: none; stroke-width: 1.6; }
svg .s0.line { stroke: var(--s0); } svg .s1.line { stroke: var(--s1); }
svg .s2.line { stroke: var(--s2); } svg .s3.line { stroke: var(--s3); }
svg .s4.line { stroke: var(--s4); } svg .s5.line { stroke: var(--s5); }
svg .s0.bar, svg .s0.dot { fill: var(--s0); }
svg .s1.bar, svg .s1.dot { fill: var(--s1); }
svg .s2.bar, svg .s2.dot { fill: var(--s2); }
svg .s3.bar, svg .s3.dot { fill: var(--s3); }
svg .s4.bar, svg .s4.dot { fill: var(--s4); }
svg .s5.bar, svg .s5.dot { fill: var(--s5); }
)";
}

}  // namespace moebius::load
