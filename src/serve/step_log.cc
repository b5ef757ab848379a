#include "serve/step_log.h"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <iterator>
#include <utility>
#include <vector>

#include "base/log.h"
#include "moe/balance/policy.h"
#include "moe/exchange/mode.h"
#include "serve/expert_balance.h"

namespace moebius::serve {
namespace {

using Clock = std::chrono::steady_clock;
constexpr auto kFlushPeriod = std::chrono::seconds(1);
constexpr size_t kFileBuffer = 1 << 20;

// How evenly the ranks that hold experts got the layers' assignments, by MoE layer.
void AppendRankBalance(const engine::StepRecord& record, std::string& out) {
  if (record.num_expert_ranks <= 0) return;
  fmt::format_to(std::back_inserter(out), R"(,"epoch":{})", record.epoch);
  if (record.placement == nullptr) return;
  std::vector<double> imbalances;
  std::vector<double> balancednesses;
  const auto num_experts = static_cast<size_t>(record.num_experts);
  const auto num_ranks = static_cast<int>(record.num_expert_ranks);
  for (size_t begin = 0; begin < record.expert_counts.size(); begin += num_experts) {
    const auto layer = record.expert_counts.subspan(begin, num_experts);
    const std::vector<int32_t> placed = record.placement->slots.Of(
        static_cast<int>(begin / num_experts), record.num_experts, num_ranks);
    const std::vector<int64_t> counts(layer.begin(), layer.end());
    const ExpertSpread spread = SpreadOf(moe::RankLoads(num_ranks, counts, placed));
    imbalances.push_back(spread.imbalance());
    balancednesses.push_back(spread.balancedness());
  }
  fmt::format_to(std::back_inserter(out),
                 R"(,"rank_imbalance":[{:.4g}],"rank_balancedness":[{:.4g}])",
                 fmt::join(imbalances, ","), fmt::join(balancednesses, ","));
}

// The share of experts that got any, by MoE layer, and what chance would give.
void AppendEffectiveRatio(const engine::StepRecord& record, std::string& out) {
  const auto num_experts = static_cast<size_t>(record.num_experts);
  std::vector<double> ratios;
  for (size_t begin = 0; begin < record.expert_counts.size(); begin += num_experts) {
    const auto layer = record.expert_counts.subspan(begin, num_experts);
    const auto num_idle = static_cast<double>(std::ranges::count(layer, 0));
    ratios.push_back(1 - num_idle / static_cast<double>(num_experts));
  }
  const auto first = record.expert_counts.first(num_experts);
  fmt::format_to(std::back_inserter(out),
                 R"(,"effective_ratio":[{:.4g}],"effective_ratio_expected":{:.4g})",
                 fmt::join(ratios, ","),
                 ExpectedEffectiveRatio(std::vector<int64_t>(first.begin(), first.end()),
                                        record.experts_per_token));
}

void AppendExperts(const engine::StepRecord& record, std::string& out) {
  const size_t num_experts = static_cast<size_t>(record.num_experts);
  if (num_experts == 0 || record.expert_counts.empty()) return;
  out += ",\"experts\":[";
  for (size_t begin = 0; begin < record.expert_counts.size(); begin += num_experts) {
    const auto layer = record.expert_counts.subspan(begin, num_experts);
    fmt::format_to(std::back_inserter(out), "{}[{}]", begin == 0 ? "" : ",", fmt::join(layer, ","));
  }
  out += ']';
  AppendEffectiveRatio(record, out);
  AppendRankBalance(record, out);
}

// Of steps that several ranks took together.
void AppendExchange(const engine::StepRecord& record, std::string& out) {
  if (record.exchange_mode != 0) {
    const auto mode = static_cast<moe::ExchangeMode>(record.exchange_mode);
    fmt::format_to(std::back_inserter(out),
                   R"(,"exchange_mode":"{}","dispatch_bytes":{},"combine_bytes":{})",
                   moe::ExchangeModeName(mode), record.dispatch_bytes, record.combine_bytes);
  }
  if (!record.dp_rows.empty()) {
    fmt::format_to(std::back_inserter(out), R"(,"rank_tokens":[{}])",
                   fmt::join(record.dp_rows, ","));
  }
}

}  // namespace

void AppendStepLine(const engine::StepRecord& record, int64_t num_dropped, std::string& out) {
  fmt::format_to(
      std::back_inserter(out),
      R"({{"step":{},"dp_rank":{},"time":{:.6f},"prefill_tokens":{},"decode_tokens":{},"requests":{},)"
      R"("running":{},"waiting":{},"kv_blocks":{},"kv_blocks_used":{},"preemptions":{},)",
      record.step_id, record.dp_rank, record.unix_time, record.num_prefill_tokens,
      record.num_decode_tokens, record.num_requests, record.num_running, record.num_waiting,
      record.num_kv_blocks, record.num_used_kv_blocks, record.num_preemptions);
  fmt::format_to(std::back_inserter(out),
                 R"("schedule_s":{:.6g},"wait_s":{:.6g},"device_s":{:.6g},"attention_s":{:.6g},)"
                 R"("dispatch_s":{:.6g},"experts_s":{:.6g},"combine_s":{:.6g},"peers_s":{:.6g},)"
                 R"("other_s":{:.6g},"head_s":{:.6g},"sampling_s":{:.6g},"dropped":{})",
                 record.schedule, record.wait, record.device, record.parts.attention,
                 record.parts.dispatch, record.parts.experts, record.parts.combine,
                 record.parts.wait, record.parts.other, record.parts.head, record.parts.sampling,
                 num_dropped);
  AppendExchange(record, out);
  AppendExperts(record, out);
  out += "}\n";
}

Result<std::shared_ptr<StepLog>> StepLog::Open(const std::string& path, size_t num_slots) {
  std::FILE* file = std::fopen(path.c_str(), "ae");
  if (file == nullptr) {
    return MakeError(ErrorCode::kUnavailable, "--step-log {}: {}", path, std::strerror(errno));
  }
  return std::shared_ptr<StepLog>(new StepLog(path, file, num_slots));
}

StepLog::StepLog(std::string path, std::FILE* file, size_t num_slots)
    : path_(std::move(path)), file_(file), ring_(num_slots) {
  std::setvbuf(file_, nullptr, _IOFBF, kFileBuffer);
  writer_ = std::thread([this] { Run(); });
}

StepLog::~StepLog() {
  {
    const std::lock_guard lock(mutex_);
    is_stopping_ = true;
  }
  news_.notify_one();
  writer_.join();
  std::fclose(file_);
}

engine::StepObserver StepLog::Observer(std::shared_ptr<StepLog> log) {
  return [log = std::move(log)](const engine::StepRecord& record) { log->Add(record); };
}

void StepLog::Add(const engine::StepRecord& record) {
  {
    const std::lock_guard lock(mutex_);
    const int64_t num_slots = static_cast<int64_t>(ring_.size());
    if (added_ - taken_ == num_slots) {
      ++dropped_;
      return;
    }
    // The slot keeps its capacity, so that nothing is allocated once the ring has gone round.
    Slot& slot = ring_[static_cast<size_t>(added_ % num_slots)];
    slot.record = record;
    slot.dp_rows.assign(record.dp_rows.begin(), record.dp_rows.end());
    slot.record.dp_rows = slot.dp_rows;
    slot.expert_counts.assign(record.expert_counts.begin(), record.expert_counts.end());
    slot.record.expert_counts = slot.expert_counts;
    ++added_;
  }
  news_.notify_one();
}

int64_t StepLog::num_written() const {
  const std::lock_guard lock(mutex_);
  return written_;
}

int64_t StepLog::num_dropped() const {
  const std::lock_guard lock(mutex_);
  return dropped_;
}

void StepLog::Run() {
  bool is_flushed = true;
  Clock::time_point flush_at{};
  std::unique_lock lock(mutex_);
  while (true) {
    const auto has_news = [&] { return added_ > taken_ || is_stopping_; };
    if (is_flushed) {
      news_.wait(lock, has_news);
    } else {
      news_.wait_until(lock, flush_at, has_news);
    }
    if (added_ > taken_) {
      const Slot& slot = ring_[static_cast<size_t>(taken_) % ring_.size()];
      const int64_t num_dropped = dropped_;
      lock.unlock();
      const bool is_written = Write(slot, num_dropped);
      if (is_flushed) flush_at = Clock::now() + kFlushPeriod;
      is_flushed = false;
      lock.lock();
      ++taken_;
      ++(is_written ? written_ : dropped_);
    } else if (is_stopping_) {
      break;
    }
    if (!is_flushed && Clock::now() >= flush_at) {
      lock.unlock();
      Flush();
      is_flushed = true;
      lock.lock();
    }
  }
  lock.unlock();
  Flush();
}

bool StepLog::Write(const Slot& slot, int64_t num_dropped) {
  if (has_failed_) return false;
  line_.clear();
  AppendStepLine(slot.record, num_dropped, line_);
  // A buffer that fills up would leave the file's last line half said, for whoever reads it now.
  if (num_buffered_ + line_.size() > kFileBuffer) Flush();
  num_buffered_ += line_.size();
  if (std::fwrite(line_.data(), 1, line_.size(), file_) == line_.size()) return true;
  LogError("--step-log {}: {}; steps are no longer logged", path_, std::strerror(errno));
  has_failed_ = true;
  return false;
}

void StepLog::Flush() {
  num_buffered_ = 0;
  if (has_failed_ || std::fflush(file_) == 0) return;
  LogError("--step-log {}: {}; steps are no longer logged", path_, std::strerror(errno));
  has_failed_ = true;
}

}  // namespace moebius::serve
