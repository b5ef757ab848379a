// What share of its model time (peak operations, peak bandwidth, a launch) a kind of operation
// reached at the shapes where it was measured, and what it will reach between and beyond them.
// Immutable after it is filled, then any thread.
#pragma once

#include <array>
#include <cmath>
#include <optional>
#include <string_view>
#include <vector>

namespace moebius::plan {

class ShareTable {
 public:
  using Shape = std::array<double, 4>;  // positive sizes; unused ones 1
  struct Share {
    double share = 1;             // model time over measured time
    std::string_view exact_on{};  // where this very shape was measured; empty: nowhere
  };

  // `device`: a literal.
  void Add(const Shape& shape, double share, std::string_view device) {
    points_.push_back({Logs(shape), std::log(share), device});
  }

  // Logarithms weighted by the fourth power of the inverse distance in log space (the nearest one
  // or two points decide). Beyond the measured range this tends to the boundary's share. Nothing
  // where nothing was measured.
  std::optional<Share> At(const Shape& shape) const {
    if (points_.empty()) return std::nullopt;
    const Shape at = Logs(shape);
    double sum = 0;
    double weights = 0;
    for (const Point& point : points_) {
      double square = 0;
      for (size_t i = 0; i < at.size(); ++i) {
        square += (at[i] - point.at[i]) * (at[i] - point.at[i]);
      }
      if (square < 1e-12) return Share{std::exp(point.log_share), point.device};
      const double weight = 1 / (square * square);
      sum += weight * point.log_share;
      weights += weight;
    }
    return Share{std::exp(sum / weights), {}};
  }

 private:
  struct Point {
    Shape at{};
    double log_share = 0;
    std::string_view device;
  };
  static Shape Logs(Shape shape) {
    for (double& value : shape) value = std::log(value);
    return shape;
  }

  std::vector<Point> points_;
};

}  // namespace moebius::plan
