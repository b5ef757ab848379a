// Messages from a rank to the next one (pipeline stages): the sender writes into a letter in the
// receiver's memory and flags it block by block, the receiver copies each part out as it comes and
// says that the letter has been read. Parts are dealt to blocks the same way on both sides.
//
// A letter is used again only when it has been read: message n goes into letter n % kLetters, after
// the receiver has said that this letter was read n / kLetters times, which it says when all its
// blocks have copied. Both sides count messages on the device, so any number may be in a graph; the
// counts and n / kLetters run over together, as kLetters is a power of two.
//
// Nobody waits in a circle: a receiver waits for the message of the same number, a sender for the
// reading of one that is kLetters older, which its receiver has queued before anything that waits
// for newer ones.
#include <algorithm>

#include "kernels/cuda/exchange/kernel.cuh"

namespace moebius::cuda::exchange {
namespace {

constexpr int kPassThreads = 256;
constexpr int kPassBlocks = 128;
constexpr uint32_t kLetters = 2;
constexpr int kInFlight = 4;  // vectors of a thread

// At the beginning of a rank's letters.
struct LetterSignals {
  uint64_t written[kLetters][kPassBlocks];  // by the rank before: this part of a message is here
  uint64_t read[kLetters];                  // by the next rank: how often it has read this letter
  // This rank's own: messages, and blocks of a call.
  uint32_t sent;
  uint32_t received;
  uint32_t sending;
  uint32_t receiving;
};
constexpr int64_t kFirstLetter = AlignUp(sizeof(LetterSignals), 1024);

struct PassParams {
  PassGroup group;
  Message message;
};

__device__ __forceinline__ LetterSignals* LettersOf(const PassGroup& g, int rank) {
  return reinterpret_cast<LetterSignals*>(g.bases[rank] + g.letters_offset);
}

__device__ __forceinline__ std::byte* LetterAt(const PassGroup& g, int rank, uint32_t letter) {
  return g.bases[rank] + g.letters_offset + kFirstLetter +
         letter * AlignUp(g.letter_bytes, int64_t{1024});
}

// True in all threads of the block once the flag carries `sequence`.
__device__ __forceinline__ bool Await(const PassGroup& g, const uint64_t* flag, uint32_t sequence,
                                      Phase phase, int silent) {
  bool failed = false;
  if (threadIdx.x == 0) {
    uint32_t value = 0;
    auto* own = reinterpret_cast<uint32_t*>(g.bases[g.rank] + g.abort_offset);
    const Waiter waiter = {own,         g.host_abort, g.bases,           g.abort_offset,
                           g.num_ranks, g.rank,       g.wait_nanoseconds};
    failed = !WaitForFlag(waiter, flag, sequence, phase, silent, &value);
  }
  return __syncthreads_or(failed) == 0;
}

// This block's part of a message: vectors of 16 bytes, and what is left of them to the first block.
__device__ void CopyPart(const std::byte* from, std::byte* to, int64_t bytes) {
  const int64_t vectors = bytes / 16;
  const int64_t chunk = (vectors + gridDim.x - 1) / gridDim.x;
  const int64_t end = min((blockIdx.x + 1) * chunk, vectors);
  for (int64_t base = blockIdx.x * chunk + threadIdx.x; base < end;
       base += kPassThreads * kInFlight) {
    uint4 words[kInFlight];
#pragma unroll
    for (int u = 0; u < kInFlight; ++u) {
      const int64_t i = base + u * kPassThreads;
      if (i < end) words[u] = LoadArrived(from + i * 16);
    }
#pragma unroll
    for (int u = 0; u < kInFlight; ++u) {
      const int64_t i = base + u * kPassThreads;
      if (i < end) *reinterpret_cast<uint4*>(to + i * 16) = words[u];
    }
  }
  const int64_t i = vectors * 16 + threadIdx.x;
  if (blockIdx.x == 0 && i < bytes) {
    to[i] = *reinterpret_cast<const volatile std::byte*>(from + i);
  }
}

__device__ __forceinline__ void BeginPass(const Message& message) {
  asm volatile("griddepcontrol.wait;" ::: "memory");
  if (message.lets_next_in) asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
}

__global__ void __launch_bounds__(kPassThreads) SendKernel(const __grid_constant__ PassParams p) {
  BeginPass(p.message);
  const PassGroup& g = p.group;
  const int next = g.rank + 1;
  LetterSignals* own = LettersOf(g, g.rank);
  const uint32_t n = LoadRelaxed(&own->sent);
  const uint32_t letter = n % kLetters;
  if (Await(g, &own->read[letter], n / kLetters, Phase::kSend, next)) {
    CopyPart(static_cast<const std::byte*>(p.message.data), LetterAt(g, next, letter),
             p.message.bytes);
    __syncthreads();
    if (threadIdx.x == 0) {
      StoreRelease(&LettersOf(g, next)->written[letter][blockIdx.x], FlagWord(n + 1, 0));
    }
  }
  if (LastToArrive(&own->sending) && threadIdx.x == 0) own->sent = n + 1;
}

__global__ void __launch_bounds__(kPassThreads)
    ReceiveKernel(const __grid_constant__ PassParams p) {
  BeginPass(p.message);
  const PassGroup& g = p.group;
  const int before = g.rank - 1;
  LetterSignals* own = LettersOf(g, g.rank);
  const uint32_t n = LoadRelaxed(&own->received);
  const uint32_t letter = n % kLetters;
  if (Await(g, &own->written[letter][blockIdx.x], n + 1, Phase::kReceive, before)) {
    CopyPart(LetterAt(g, g.rank, letter), static_cast<std::byte*>(p.message.data), p.message.bytes);
  }
  if (LastToArrive(&own->receiving) && threadIdx.x == 0) {
    own->received = n + 1;
    StoreRelease(&LettersOf(g, before)->read[letter], FlagWord((n + kLetters) / kLetters, 0));
  }
}

const char* Pass(void (*kernel)(PassParams), const PassGroup& group, int peer,
                 const Message& message, CUstream_st* stream) {
  if (group.num_ranks > kMaxRanks || group.rank < 0 || group.rank >= group.num_ranks || peer < 0 ||
      peer >= group.num_ranks) {
    return "a message: a rank sends to the next of at most 64, and receives from the one before";
  }
  if (group.bases[group.rank] == nullptr || group.bases[peer] == nullptr) {
    return "a message: both ranks' allocations must be given";
  }
  if (message.bytes <= 0 || message.bytes > group.letter_bytes ||
      reinterpret_cast<uintptr_t>(message.data) % 16 != 0) {
    return "a message: it must fit a letter and be 16-byte aligned";
  }
  constexpr int64_t kBlockBytes = int64_t{kPassThreads} * 16;
  const int most = message.num_blocks > 0 ? std::min(message.num_blocks, kPassBlocks) : kPassBlocks;
  const auto blocks = static_cast<int>(
      std::clamp<int64_t>((message.bytes + kBlockBytes - 1) / kBlockBytes, 1, most));
  return Launch(kernel, PassParams{group, message}, blocks, kPassThreads, 0, message.lets_next_in,
                stream);
}

}  // namespace

size_t LettersBytes(int64_t letter_bytes) {
  return static_cast<size_t>(kFirstLetter + kLetters * AlignUp(letter_bytes, 1024));
}

const char* LaunchSend(const PassGroup& group, const Message& message, CUstream_st* stream) {
  return Pass(SendKernel, group, group.rank + 1, message, stream);
}

const char* LaunchReceive(const PassGroup& group, const Message& message, CUstream_st* stream) {
  return Pass(ReceiveKernel, group, group.rank - 1, message, stream);
}

}  // namespace moebius::cuda::exchange
