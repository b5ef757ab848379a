// Streams and events. Each is owned by the object; work may be queued from any thread, one at a
// time.
#pragma once

#include "base/result.h"

struct CUstream_st;
struct CUevent_st;

namespace moebius::platform::cuda {

class Event;

// A queue of device work that runs in order, beside the default stream and not after it.
class Stream {
 public:
  Stream() = default;
  // On the current device. high_priority: its blocks go before those of other streams.
  static Result<Stream> Create(bool high_priority = false);

  Stream(Stream&& other) noexcept;
  Stream& operator=(Stream&& other) noexcept;
  ~Stream();

  CUstream_st* get() const { return stream_; }
  // Waits until all queued work is done; its faults appear here.
  Status Synchronize() const;
  // Work queued from now on waits for the event (on the device).
  Status WaitFor(const Event& event) const;

 private:
  explicit Stream(CUstream_st* stream) : stream_(stream) {}

  CUstream_st* stream_ = nullptr;
};

// A point in a stream.
class Event {
 public:
  Event() = default;
  // timing: MillisecondsSince may be asked (costs a little on the device).
  static Result<Event> Create(bool timing = false);

  Event(Event&& other) noexcept;
  Event& operator=(Event&& other) noexcept;
  ~Event();

  CUevent_st* get() const { return event_; }
  Status Record(const Stream& stream) const;
  // Waits on the host, without spinning.
  Status Synchronize() const;
  // Whether the point is passed.
  Result<bool> Done() const;
  // Both recorded with timing, and done.
  Result<float> MillisecondsSince(const Event& start) const;

 private:
  explicit Event(CUevent_st* event) : event_(event) {}

  CUevent_st* event_ = nullptr;
};

// What `stream` is given from now on waits for all that `other` was given before; for streams that
// others own. `event` is recorded for that.
Status ComeAfter(CUstream_st* stream, CUstream_st* other, CUevent_st* event);

}  // namespace moebius::platform::cuda
