#include "plan/report_drawing.h"

#include <fmt/core.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

#include "plan/report_sections.h"

namespace moebius::plan {
namespace {

constexpr double kWidth = 960;
constexpr size_t kMostBars = 12;

constexpr std::array kPartColours = {"#3e63dd", "#7c93e8", "#e5713d", "#f2a27f", "#c9a227",
                                     "#46a758", "#93cba0", "#8e4ec6", "#b9a3d6"};
constexpr const char* kKvColour = "#12a594";
constexpr std::array kCurveColours = {"#3e63dd", "#e5713d", "#12a594", "#8e4ec6", "#c9a227"};

std::string Text(double x, double y, const std::string& text, const char* anchor = "start",
                 const char* extra = "") {
  return fmt::format("<text x=\"{:.1f}\" y=\"{:.1f}\" text-anchor=\"{}\"{}>{}</text>\n", x, y,
                     anchor, extra, EscapedHtml(text));
}

std::string Rect(double x, double y, double width, double height, const char* colour,
                 const std::string& title) {
  return fmt::format(
      "<rect x=\"{:.1f}\" y=\"{:.1f}\" width=\"{:.1f}\" height=\"{:.1f}\" fill=\"{}\"><title>{}"
      "</title></rect>\n",
      x, y, width, height, colour, EscapedHtml(title));
}

std::string Svg(double height, const std::string& label, const std::string& body) {
  // No namespace: inline in HTML none is needed, and the page then names no address at all.
  return fmt::format(
      "<svg viewBox=\"0 0 {:.0f} {:.0f}\" role=\"img\" aria-label=\"{}\">\n{}</svg>\n", kWidth,
      height, label, body);
}

// A logarithmic axis from 1-2-5 ticks around the data.
struct Axis {
  double low = 1;
  double high = 10;
  double from = 0;  // drawn position of low
  double to = 1;

  double At(double value) const {
    return from + (to - from) * std::log(value / low) / std::log(high / low);
  }
  std::vector<double> Ticks() const {
    std::vector<double> ticks;
    const bool dense = high / low <= 200;
    for (double decade = std::pow(10, std::floor(std::log10(low))); decade <= high; decade *= 10) {
      for (const double step : {1.0, 2.0, 5.0}) {
        if (step != 1 && !dense) continue;
        const double tick = decade * step;
        if (tick >= low * 0.999 && tick <= high * 1.001) ticks.push_back(tick);
      }
    }
    return ticks;
  }
};

// The nearest 1, 2 or 5 times a power of ten at or below (above) a value.
double RoundTick(double value, bool up) {
  const double decade = std::pow(10, std::floor(std::log10(value)));
  double below = decade;
  for (const double step : {1.0, 2.0, 5.0, 10.0}) {
    const double tick = decade * step;
    if (up && tick >= value * 0.999) return tick;
    if (tick <= value * 1.001) below = tick;
  }
  return below;
}

Axis MakeAxis(const std::vector<Curve>& curves, double CurvePoint::* value, double from,
              double to) {
  double low = std::numeric_limits<double>::max();
  double high = 0;
  for (const Curve& curve : curves) {
    for (const CurvePoint& point : curve.points) {
      low = std::min(low, point.*value);
      high = std::max(high, point.*value);
    }
  }
  Axis axis{1, 10, from, to};
  if (high <= 0) return axis;
  axis.low = RoundTick(low, false);
  axis.high = std::max(RoundTick(high, true), axis.low * 2);
  return axis;
}

std::string Mark(double x, double y, const char* colour, Basis basis, const std::string& title) {
  const std::string tip = fmt::format("<title>{}</title>", EscapedHtml(title));
  switch (basis) {
    case Basis::kMeasured:
      return fmt::format("<circle cx=\"{:.1f}\" cy=\"{:.1f}\" r=\"4\" fill=\"{}\">{}</circle>\n", x,
                         y, colour, tip);
    case Basis::kInterpolated:
      return fmt::format(
          "<circle cx=\"{:.1f}\" cy=\"{:.1f}\" r=\"4\" fill=\"var(--page)\" stroke=\"{}\" "
          "stroke-width=\"2\">{}</circle>\n",
          x, y, colour, tip);
    case Basis::kRoofline:
      break;
  }
  return fmt::format(
      "<rect x=\"{:.1f}\" y=\"{:.1f}\" width=\"7\" height=\"7\" fill=\"var(--page)\" "
      "stroke=\"{}\" stroke-width=\"2\">{}</rect>\n",
      x - 3.5, y - 3.5, colour, tip);
}

std::string DrawAxes(const Axis& x, const Axis& y) {
  std::string body;
  for (const double tick : x.Ticks()) {
    body += fmt::format(
        "<line class=\"grid\" x1=\"{0:.1f}\" x2=\"{0:.1f}\" y1=\"{1:.1f}\" y2=\"{2:.1f}\"/>\n",
        x.At(tick), y.from, y.to);
    body += Text(x.At(tick), y.from + 18, fmt::format("{:g}", tick), "middle", " class=\"soft\"");
  }
  for (const double tick : y.Ticks()) {
    body += fmt::format(
        "<line class=\"grid\" x1=\"{1:.1f}\" x2=\"{2:.1f}\" y1=\"{0:.1f}\" y2=\"{0:.1f}\"/>\n",
        y.At(tick), x.from, x.to);
    body += Text(x.from - 8, y.At(tick) + 4, fmt::format("{:g}", tick), "end", " class=\"soft\"");
  }
  body += Text(x.to, y.from + 38, "tokens/s for a user (log)", "end", " class=\"soft\"");
  body += Text(x.from, y.to - 12, "output tokens/s of a GPU (log)", "start", " class=\"soft\"");
  return body;
}

}  // namespace

std::string MemoryBars(const PlanInput& input, const std::vector<Estimate>& estimates) {
  constexpr double kLeft = 150;
  constexpr double kRow = 26;
  const double hbm = input.device.hbm_bytes;
  const size_t num_bars = std::min(kMostBars, estimates.size());
  double most = hbm;  // a layout that does not fit reaches beyond the memory there is
  for (size_t i = 0; i < num_bars; ++i) {
    most = std::max(most, estimates[i].memory.total_without_kv());
  }
  const double scale = (kWidth - kLeft - 20) / most;
  std::string body;
  std::vector<bool> seen(kPartColours.size() + 1, false);
  for (size_t i = 0; i < num_bars; ++i) {
    const double y = 8 + kRow * static_cast<double>(i);
    body += Text(kLeft - 10, y + 14, estimates[i].name(), "end");
    double x = kLeft;
    const std::vector<MemoryPart> parts = MemoryParts(estimates[i].memory);
    const auto draw = [&](size_t at, const char* name, const char* colour, double bytes) {
      if (bytes <= 0) return;
      body += Rect(x, y, bytes * scale, kRow - 8, colour,
                   fmt::format("{}: {} {} GB", estimates[i].name(), name, Gigabytes(bytes)));
      x += bytes * scale;
      seen[at] = true;
    };
    for (size_t p = 0; p < parts.size(); ++p) {
      draw(p, parts[p].name, kPartColours[p], parts[p].bytes);
    }
    draw(parts.size(), "KV cache", kKvColour, estimates[i].memory.kv_budget);
  }
  const double bottom = 8 + kRow * static_cast<double>(num_bars);
  const double edge = kLeft + hbm * scale;
  body += fmt::format(
      "<line x1=\"{0:.1f}\" x2=\"{0:.1f}\" y1=\"2\" y2=\"{1:.1f}\" stroke=\"var(--ink)\"/>\n", edge,
      bottom);
  body += Text(edge, bottom + 16, fmt::format("{:.0f} GB", hbm / 1e9), "end", " class=\"soft\"");
  double x = kLeft;
  double y = bottom + 24;
  const std::vector<MemoryPart> names = MemoryParts(MemoryUse{});
  for (size_t p = 0; p <= names.size(); ++p) {
    if (!seen[p]) continue;
    const std::string name = p < names.size() ? names[p].name : "KV cache";
    const double width = 26 + 7.0 * static_cast<double>(name.size());
    if (x + width > kWidth) {
      x = kLeft;
      y += 20;
    }
    body += Rect(x, y, 12, 12, p < names.size() ? kPartColours[p] : kKvColour, name);
    body += Text(x + 17, y + 11, name);
    x += width;
  }
  return Svg(y + 24, "memory of a GPU by layout", body);
}

std::string CurveDrawing(const std::vector<Curve>& curves) {
  constexpr double kHeight = 440;
  const Axis x = MakeAxis(curves, &CurvePoint::tokens_per_s_user, 70, kWidth - 190);
  const Axis y = MakeAxis(curves, &CurvePoint::tokens_per_s_gpu, kHeight - 50, 30);
  std::string body = DrawAxes(x, y);
  for (size_t i = 0; i < curves.size(); ++i) {
    const char* colour = kCurveColours[i % kCurveColours.size()];
    std::string path;
    for (const CurvePoint& point : curves[i].points) {
      path += fmt::format("{}{:.1f},{:.1f}", path.empty() ? "M" : " L",
                          x.At(point.tokens_per_s_user), y.At(point.tokens_per_s_gpu));
    }
    if (path.empty()) continue;
    body += fmt::format("<path d=\"{}\" fill=\"none\" stroke=\"{}\" stroke-width=\"2\"/>\n", path,
                        colour);
    for (const CurvePoint& point : curves[i].points) {
      body += Mark(x.At(point.tokens_per_s_user), y.At(point.tokens_per_s_gpu), colour, point.basis,
                   fmt::format("{} at {} in flight: {} tokens/s/user, {} tokens/s/GPU ({})",
                               curves[i].layout, point.concurrency, Rate(point.tokens_per_s_user),
                               Rate(point.tokens_per_s_gpu), BasisName(point.basis)));
    }
    const double line = 40 + 22 * static_cast<double>(i);
    body += fmt::format(
        "<line x1=\"{:.0f}\" x2=\"{:.0f}\" y1=\"{:.1f}\" y2=\"{:.1f}\" stroke=\"{}\" "
        "stroke-width=\"3\"/>\n",
        kWidth - 175, kWidth - 153, line, line, colour);
    body += Text(kWidth - 147, line + 4, curves[i].layout);
  }
  body += Text(70, kHeight - 4,
               "Each point doubles the requests in flight. Disc: measured, ring: interpolated, "
               "square: roofline.",
               "start", " class=\"soft\"");
  return Svg(kHeight, "tokens per second for a user against tokens per second of a GPU", body);
}

}  // namespace moebius::plan
