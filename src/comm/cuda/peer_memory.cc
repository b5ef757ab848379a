#include "comm/cuda/peer_memory.h"

#include <atomic>

#include "kernels/cuda/exchange/protocol.h"

namespace moebius::comm {
namespace {

using cuda::exchange::Abort;
using cuda::exchange::Phase;

const char* PhaseName(Phase phase) {
  switch (phase) {
    case Phase::kDispatch:
      return "dispatch";
    case Phase::kCombine:
      return "combine";
    case Phase::kAllReduce:
      return "all-reduce";
    case Phase::kReduceScatter:
      return "reduce-scatter";
    case Phase::kAllGather:
      return "all-gather";
    case Phase::kSend:
      return "send";
    case Phase::kReceive:
      return "receive";
    case Phase::kNone:
      break;
  }
  return "a collective";
}

}  // namespace

Result<PeerMemory> PeerMemory::Allocate(size_t num_bytes, size_t abort_offset) {
  PeerMemory peer;
  MOEBIUS_ASSIGN(peer.memory_, platform::cuda::ShareableMemory::Allocate(num_bytes));
  MOEBIUS_ASSIGN(peer.host_abort_, platform::cuda::PinnedMemory::Allocate(2 * sizeof(uint32_t)));
  MOEBIUS_ASSIGN(peer.stream_, platform::cuda::Stream::Create());
  peer.host_abort()[0] = 0;
  peer.host_abort()[1] = cuda::exchange::AbortWord(Phase::kNone, 0, 0);
  peer.abort_offset_ = abort_offset;
  MOEBIUS_TRY(platform::cuda::FillAsync(peer.data(), 0, num_bytes, peer.stream_));
  MOEBIUS_TRY(peer.stream_.Synchronize());
  return peer;
}

Status PeerMemory::Check(const GroupInfo& info) {
  const uint32_t word = std::atomic_ref(*host_abort()).load(std::memory_order_acquire);
  const Abort abort = cuda::exchange::DecodeAbort(word);
  const auto world = [&](int rank) { return info.world_ranks[static_cast<size_t>(rank)]; };
  if (word != 0 && abort.phase != Phase::kNone && abort.silent < info.size() &&
      abort.reporter < info.size()) {
    if (info.abort != nullptr) info.abort->Set(world(abort.reporter), world(abort.silent));
    return MakeError(ErrorCode::kDeadline,
                     "rank {} did not come in time: the GPU of rank {} waited for it in {} of {}",
                     world(abort.silent), world(abort.reporter), PhaseName(abort.phase), info.name);
  }
  if (info.abort == nullptr || !info.abort->is_set()) return {};
  if (!is_told_) {
    is_told_ = true;
    // One that has not arrived in time is ended by the kernels' own limit.
    (void)platform::cuda::CopyAsync(data() + abort_offset_, host_abort() + 1, sizeof(uint32_t),
                                    stream_);
  }
  const int culprit = info.abort->culprit();
  return MakeError(ErrorCode::kUnavailable, "{} was given up: rank {} saw a failure{}", info.name,
                   info.abort->seen_by(), culprit < 0 ? "" : fmt::format(" of rank {}", culprit));
}

}  // namespace moebius::comm
