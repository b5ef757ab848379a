#include "platform/cuda/trace_range.h"

#include <nvtx3/nvToolsExt.h>

namespace moebius::platform::cuda {

TraceRange::TraceRange(const char* name) { nvtxRangePushA(name); }
TraceRange::~TraceRange() { nvtxRangePop(); }

void MarkTraceRange(const char* name) {
  if (name != nullptr) {
    nvtxRangePushA(name);
  } else {
    nvtxRangePop();
  }
}

}  // namespace moebius::platform::cuda
