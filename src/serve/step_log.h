// --step-log FILE: what every step did, one JSON line each (the fields: docs/metrics.md). The
// engine's thread copies a record into a bounded ring; a thread of the log's own writes it. When
// the ring is full the record is dropped and counted: the engine never waits for a disk.
//
// Shared by the program and the observer it gave to the engine; the last of them closes the file,
// everything taken so far written.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <cstdio>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "base/result.h"
#include "engine/step_record.h"

namespace moebius::serve {

class StepLog {
 public:
  // Appends to `path`. kUnavailable: it cannot be opened for writing, and why. `num_slots` steps
  // may wait for the writer.
  static Result<std::shared_ptr<StepLog>> Open(const std::string& path, size_t num_slots = 1024);
  ~StepLog();
  StepLog(const StepLog&) = delete;
  StepLog& operator=(const StepLog&) = delete;

  // For EngineOptions::on_step.
  static engine::StepObserver Observer(std::shared_ptr<StepLog> log);

  // One thread at a time; copies, never waits for the file.
  void Add(const engine::StepRecord& record);

  int64_t num_written() const;
  int64_t num_dropped() const;  // the ring was full, or the file took no more

 private:
  // A record and what its spans pointed to.
  struct Slot {
    engine::StepRecord record;
    std::vector<int64_t> dp_rows;
    std::vector<int32_t> expert_counts;
  };

  StepLog(std::string path, std::FILE* file, size_t num_slots);

  void Run();
  bool Write(const Slot& slot, int64_t num_dropped);
  void Flush();

  const std::string path_;
  std::FILE* const file_;
  std::vector<Slot> ring_;   // slot i % size belongs to the writer from `written_` to `added_`
  std::string line_;         // the writer's
  size_t num_buffered_ = 0;  // the same: bytes since the last flush
  bool has_failed_ = false;

  mutable std::mutex mutex_;
  std::condition_variable news_;
  int64_t added_ = 0;
  int64_t taken_ = 0;  // by the writer, whether they reached the file or not
  int64_t written_ = 0;
  int64_t dropped_ = 0;
  bool is_stopping_ = false;

  std::thread writer_;  // last: it uses all of the above
};

// The line of one record, line feed included, appended to `out`. `num_dropped`: records lost before
// it.
void AppendStepLine(const engine::StepRecord& record, int64_t num_dropped, std::string& out);

}  // namespace moebius::serve
