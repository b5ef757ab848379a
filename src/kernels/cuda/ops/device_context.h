// What operations on a GPU run with: a stream, and where its first error is kept. Owned by the
// rank's step runner; called by its thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>

#include "base/result.h"

struct CUevent_st;
struct CUstream_st;

namespace moebius::kernels::cuda {

class DenseProducts;

struct DeviceContext {
  CUstream_st* stream = nullptr;
  CUevent_st* given = nullptr;  // where others have to wait for this one; null: none has to
  int num_sms = 0;
  // Where blocks of one launch meet, on the device: a number in which those that take work after
  // work count, and for products whose tiles are summed in parts tuning::PartCounters and
  // PartialFloats. Numbers are zero between launches.
  int32_t* next_work = nullptr;
  int32_t* arrivals = nullptr;
  float* partials = nullptr;
  DenseProducts* dense = nullptr;  // null: no library for them, our own kernel serves
  // Every product by the one kernel that takes all shapes and sums a row in one order, whatever
  // else is computed with it: slow, and the same bits for any batch and any cut of the weights.
  bool deterministic = false;
  // Of a launch, since it was taken last: operations return nothing, so a step asks once at its
  // end.
  std::optional<Error> error;

  // The memory of the above: so many bytes of the device's, all zero.
  static size_t MeetingBytes(int num_sms);
  void GiveMeetingRoom(void* zeroed);

  // A cudaError_t, or a launch's text (null: all is well), of operation `op`.
  void Check(int code, const char* op);
  void Check(const char* text, const char* op);
  Status TakeError();

  // What this one is given from now on comes after all that `other` was given. Its error is this
  // one's from then on.
  void ComeAfter(DeviceContext& other);
};

}  // namespace moebius::kernels::cuda
