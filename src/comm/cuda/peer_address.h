// Where a rank's device memory is, as ranks tell each other: threads of its process use the
// address, other processes of the machine map it by a handle (CUDA's IPC memory, which needs no
// descriptor to be passed on). The rank's thread calls, with its GPU selected.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "base/result.h"

namespace moebius::comm {

struct PeerAddress {
  int64_t process = 0;
  int64_t address = 0;     // there; 0: the rank has no such memory
  int64_t has_handle = 0;  // else the driver gave none: threads alone can use it
  std::array<std::byte, 64> handle = {};
};

// data: the beginning of an allocation of this process, or null.
PeerAddress AddressOf(const std::byte* data);

// Memory of any rank of the machine, as this process addresses it.
class PeerMapping {
 public:
  // kUnsupported where another process's memory cannot be mapped: no handle, GPUs that are not
  // linked, containers that do not share what CUDA's IPC needs.
  static Result<PeerMapping> Open(const PeerAddress& peer, int peer_rank);

  PeerMapping(PeerMapping&& other) noexcept;
  PeerMapping& operator=(PeerMapping&& other) noexcept;
  ~PeerMapping();

  std::byte* data() const { return data_; }

 private:
  PeerMapping(std::byte* data, bool is_mapped) : data_(data), is_mapped_(is_mapped) {}

  std::byte* data_ = nullptr;
  bool is_mapped_ = false;  // else it is this process's own
};

}  // namespace moebius::comm
