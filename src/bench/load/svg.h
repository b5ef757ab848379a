// Small plots as SVG text, for reports that are one file: lines, bars, points, a shaded stretch.
// Colours and fonts come from the page's style (classes s0 to s5, band, grid, soft). Plain values.
#pragma once

#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace moebius::load {

using Points = std::vector<std::pair<double, double>>;

class Plot {
 public:
  Plot(std::string title, std::string x_label, std::string y_label)
      : title_(std::move(title)), x_label_(std::move(x_label)), y_label_(std::move(y_label)) {}

  void AddLine(std::string name, Points points) {
    series_.push_back({Kind::kLine, std::move(name), std::move(points)});
  }
  // x is the left edge of each, `width` wide.
  void AddBars(std::string name, Points points, double width) {
    bar_width_ = width;
    series_.push_back({Kind::kBars, std::move(name), std::move(points)});
  }
  // A line with a dot at each point; labels, where given, stand beside the dots.
  void AddDots(std::string name, Points points, std::vector<std::string> labels) {
    series_.push_back({Kind::kDots, std::move(name), std::move(points), std::move(labels)});
  }
  void SetBand(double from, double to) { band_ = {from, to}; }

  std::string Render() const;

 private:
  enum class Kind { kLine, kBars, kDots };
  struct Series {
    Kind kind;
    std::string name;
    Points points;
    std::vector<std::string> labels = {};
  };

  std::string Draw(const Series& series, size_t index) const;
  double X(double value) const;
  double Y(double value) const;

  std::string title_, x_label_, y_label_;
  std::vector<Series> series_;
  std::optional<std::pair<double, double>> band_;
  double bar_width_ = 1;
  mutable double x_low_ = 0, x_high_ = 1, y_high_ = 1;  // set by Render
};

// Counts of samples in equal bins up to the 99.5th percentile; empty without samples.
struct Bins {
  Points points;
  double width = 1;
};
Bins BinsOf(std::vector<double> samples, int num_bins);

std::string EscapeXml(const std::string& text);
// The style that pages with plots share.
const char* PageStyle();

}  // namespace moebius::load
