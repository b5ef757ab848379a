// What the ranks of one group do together: tensor, pipeline or expert parallel. Every member makes
// the same calls in the same order with the same sizes; the device thread of a rank makes them.
//
// A failure (a member that does not come in time, an abort elsewhere) sticks: the call that saw it
// and all later ones return at once and leave what they should have filled as it is. Ask status()
// when a step is done; there is no need to ask between calls.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "base/result.h"
#include "comm/signal.h"
#include "tensor/view.h"

namespace moebius::comm {

// Bytes sent by this member since the start (its own part of a gather counts once, whoever reads
// it), by kind.
struct CommBytes {
  int64_t gather = 0;
  int64_t reduce = 0;
  int64_t broadcast = 0;
  int64_t send = 0;
};

class Communicator {
 public:
  virtual ~Communicator() = default;

  virtual int rank() const = 0;  // in the group
  virtual int size() const = 0;

  // Calls until the next BeginStep belong to `step` (errors name it) and end by `deadline`.
  virtual void BeginStep(int64_t step, Clock::time_point deadline) = 0;
  // kDeadline names the member that was late, the call and the step; kUnavailable: another rank saw
  // a failure first.
  virtual const Status& status() const = 0;

  virtual void Barrier() = 0;
  // all[r * bytes, (r + 1) * bytes) is member r's `mine`.
  virtual void AllGather(std::span<const std::byte> mine, std::span<std::byte> all) = 0;
  // Rows [row_begin[r], row_begin[r + 1]) of `all` are member r's `mine`; size() + 1 entries.
  virtual void AllGatherRows(Mat mine, Mat all, std::span<const int64_t> row_begin) = 0;
  // Columns likewise. `mine` may lie inside of `all`.
  virtual void AllGatherColumns(Mat mine, Mat all, std::span<const int64_t> column_begin) = 0;
  // data (float32 or bfloat16) becomes the sum of all members' data, added in float32 in the order
  // of members and rounded once: the same bits on every member.
  virtual void AllReduce(Mat data) = 0;
  // out = rows [row_begin[rank()], row_begin[rank() + 1]) of that sum.
  virtual void ReduceScatter(Mat data, Mat out, std::span<const int64_t> row_begin) = 0;
  virtual void Broadcast(int root, std::span<std::byte> data) = 0;
  // One message to `peer`, that calls Receive with as many bytes. Messages of a pair keep their
  // order; Send may wait until the one before the last was received.
  virtual void Send(int peer, std::span<const std::byte> data) = 0;
  virtual void Receive(int peer, std::span<std::byte> data) = 0;

  virtual CommBytes bytes() const = 0;
};

// [0, count) in `parts` pieces, as even as multiples of `unit` allow: parts + 1 bounds. The first
// pieces have more.
std::vector<int64_t> SplitEvenly(int64_t count, int parts, int64_t unit = 1);

}  // namespace moebius::comm
