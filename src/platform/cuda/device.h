// GPUs of this process and how their errors become values. Built only with CUDA. A device is
// current per thread: the thread that runs a rank's device selects it once.
#pragma once

#include <cstddef>
#include <string>

#include "base/result.h"

namespace moebius::platform::cuda {

// The error of a CUDA run-time call or of a kernel launch (a cudaError_t; 0 is none) as a value;
// `what` says what was tried. Memory that does not fit is kOutOfMemory, a device or driver that is
// not there kUnavailable, what it cannot do kUnsupported, anything else kInternal: then the rank is
// lost, as such errors stay.
Status ToStatus(int error, const char* what);

struct DeviceInfo {
  std::string name;
  int num_multiprocessors = 0;
  int major = 0;  // compute capability
  int minor = 0;
  size_t l2_bytes = 0;
  size_t total_bytes = 0;
  size_t free_bytes = 0;
};

// How many devices there are: 0 without a driver.
Result<int> DeviceCount();
// Makes `device` current for this thread and describes it.
Result<DeviceInfo> SelectDevice(int device);
// All but its free memory: that takes a context on the device, half a GB of it in each process.
Result<DeviceInfo> DescribeDevice(int device);
// The one that is current for this thread.
Result<DeviceInfo> CurrentDevice();

// Whether the current device can address memory of `peer`: kUnsupported if the two are not linked.
Status CheckLink(int peer);
// Lets it address what cudaMalloc gave on `peer`, another one (a ShareableMemory has its own way).
// More than once is no error.
Status EnablePeerAccess(int peer);

}  // namespace moebius::platform::cuda
