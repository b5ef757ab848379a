// Writes metrics as Prometheus's text format 0.0.4: families with HELP and TYPE, labels escaped,
// one string that only grows. A plain value of whoever makes it, one thread at a time.
//
//   MetricsText text({{"model_name", "demo"}});
//   text.Gauge("num_requests_running", "Requests that have a place in steps.", 3);
//   text.Counter("requests_total", "Requests answered.");       // more than one sample:
//   text.Sample(5, {{"status", "2xx"}});                        // each after its family
//   text.Sample(1, {{"status", "4xx"}});
#pragma once

#include <concepts>
#include <cstdint>
#include <initializer_list>
#include <span>
#include <string>
#include <string_view>
#include <utility>

#include "base/histogram.h"

namespace moebius {

class MetricsText {
 public:
  using Label = std::pair<std::string_view, std::string_view>;
  using Labels = std::initializer_list<Label>;

  // `common` labels stand on every sample of every family that does not say otherwise.
  explicit MetricsText(Labels common = {});

  // Begins a family: HELP and TYPE. Its samples follow before the next family begins. A name is
  // used once; a counter's ends with _total.
  void Counter(std::string_view name, std::string_view help) { Family(name, "counter", help); }
  void Gauge(std::string_view name, std::string_view help) { Family(name, "gauge", help); }
  void HistogramFamily(std::string_view name, std::string_view help) {
    Family(name, "histogram", help);
  }

  // One sample of the family begun last.
  void Sample(std::integral auto value, Labels labels = {}) {
    Line("", labels, {}, static_cast<int64_t>(value));
  }
  void Sample(double value, Labels labels = {}) { Line("", labels, {}, value); }
  // Cumulative buckets up to +Inf, sum and count.
  void Sample(const Histogram& histogram, Labels labels = {}) {
    Buckets(histogram.bounds(), histogram.counts(), histogram.sum(), labels);
  }
  // The same of one that is no Histogram: one count a bound, not cumulative, and one above them.
  void Buckets(std::span<const double> bounds, std::span<const int64_t> counts, double sum,
               Labels labels = {});

  // A family of one sample.
  template <typename Value>
  void Counter(std::string_view name, std::string_view help, const Value& value) {
    Counter(name, help);
    Sample(value);
  }
  template <typename Value>
  void Gauge(std::string_view name, std::string_view help, const Value& value) {
    Gauge(name, help);
    Sample(value);
  }
  void HistogramFamily(std::string_view name, std::string_view help, const Histogram& histogram) {
    HistogramFamily(name, help);
    Sample(histogram);
  }

  // From here on samples bear only their own labels (process_..., http_...).
  void DropCommonLabels() { common_.clear(); }

  const std::string& text() const { return text_; }
  std::string Take() { return std::move(text_); }

 private:
  void Family(std::string_view name, std::string_view type, std::string_view help);
  void BeginLine(std::string_view suffix, Labels labels, Label last);
  void Line(std::string_view suffix, Labels labels, Label last, int64_t value);
  void Line(std::string_view suffix, Labels labels, Label last, double value);

  std::string text_;
  std::string name_;    // of the family begun last
  std::string common_;  // as they are written: a="b",c="d"
};

}  // namespace moebius
