#include "comm/cuda/peer_address.h"

#include <cuda_runtime_api.h>
#include <fmt/format.h>
#include <unistd.h>

#include <cstring>
#include <utility>

#include "platform/cuda/device.h"

namespace moebius::comm {

static_assert(sizeof(PeerAddress::handle) == sizeof(cudaIpcMemHandle_t));

PeerAddress AddressOf(const std::byte* data) {
  PeerAddress peer{.process = getpid(),
                   .address = static_cast<int64_t>(reinterpret_cast<uintptr_t>(data))};
  if (data == nullptr) return peer;
  cudaIpcMemHandle_t handle;
  if (cudaIpcGetMemHandle(&handle, const_cast<std::byte*>(data)) != cudaSuccess) {
    cudaGetLastError();  // it matters to other processes alone
    return peer;
  }
  peer.has_handle = 1;
  std::memcpy(peer.handle.data(), &handle, sizeof(handle));
  return peer;
}

Result<PeerMapping> PeerMapping::Open(const PeerAddress& peer, int peer_rank) {
  if (peer.address == 0 || peer.process == getpid()) {
    return PeerMapping(reinterpret_cast<std::byte*>(static_cast<uintptr_t>(peer.address)), false);
  }
  if (peer.has_handle == 0) {
    return MakeError(ErrorCode::kUnsupported,
                     "the GPU memory of rank {} (process {}) has no IPC handle, expected a driver "
                     "that shares memory between processes, or --all2all-backend inproc "
                     "--deterministic",
                     peer_rank, peer.process);
  }
  cudaIpcMemHandle_t handle;
  std::memcpy(&handle, peer.handle.data(), sizeof(handle));
  void* data = nullptr;
  MOEBIUS_TRY(platform::cuda::ToStatus(
      cudaIpcOpenMemHandle(&data, handle, cudaIpcMemLazyEnablePeerAccess),
      fmt::format("mapping the GPU memory of rank {} (process {})", peer_rank, peer.process)
          .c_str()));
  return PeerMapping(static_cast<std::byte*>(data), true);
}

PeerMapping::PeerMapping(PeerMapping&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)),
      is_mapped_(std::exchange(other.is_mapped_, false)) {}

PeerMapping& PeerMapping::operator=(PeerMapping&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(is_mapped_, other.is_mapped_);
  return *this;
}

PeerMapping::~PeerMapping() {
  if (is_mapped_) cudaIpcCloseMemHandle(data_);
}

}  // namespace moebius::comm
