// One copy of every expert a node, in shared memory with names: where an online move finds an
// expert that no peer may give it. Each local rank of the node owns a contiguous share of the
// experts of every layer, fills and seals it; the others map it when they first ask. Behind each
// expert is the checksum of what it was filled from. Optional: peers and the checkpoint have the
// same bytes.
//
// A rank owns its HostPool and fills it on one thread; from then on Get may be called from any.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <vector>

#include "base/result.h"
#include "platform/named_memory.h"

namespace moebius::moe {

struct HostPoolOptions {
  std::string base;  // HostPoolBase()
  int num_experts = 0;
  int local_rank = 0;
  int num_local_ranks = 1;
  // Of one expert, by layer with balanced experts; 0: a layer of other ranks (pipeline stages).
  std::vector<size_t> expert_bytes;
  std::string folder = platform::kSharedMemoryFolder;
};

class HostPool {
 public:
  // Experts begin at multiples of this.
  static constexpr size_t kAlignment = 256;

  // Removes what dead owners left under the base, checks that the whole node's pool fits (whatever
  // of it is there already), then makes and reserves this rank's segments. kOutOfMemory with the
  // commands that make room; kUnavailable where another instance has the base, with its pid;
  // kInvalidArgument: the base, or numbers that make no sense. Nothing is left of a failure.
  static Result<HostPool> Create(const HostPoolOptions& options);

  HostPool(HostPool&&) = default;
  HostPool& operator=(HostPool&&) = default;

  // The experts of this rank.
  int first() const { return FirstOf(options_.local_rank); }
  int end() const { return FirstOf(options_.local_rank + 1); }

  // Writes one of them, before Seal: parts that follow each other and are all of its bytes.
  void Fill(int layer, int expert, std::span<const std::span<const std::byte>> parts);
  // All are filled; nobody writes again.
  void Seal();

  struct Entry {
    std::span<const std::byte> bytes;
    uint64_t checksum = 0;  // of what they were filled from (expert_checksum.h)
  };
  // Any expert's, for as long as the pool lives. kNotFound, kUnavailable: its owner has not made,
  // has not filled or no longer has it; kCorrupt: the segment is not of this model's size. Whether
  // the bytes have their checksum is for the one who reads them.
  Result<Entry> Get(int layer, int expert);

  // Of the whole node, all segments.
  static size_t TotalBytes(const HostPoolOptions& options);

 private:
  explicit HostPool(HostPoolOptions options);
  // The first expert of a local rank's share.
  int FirstOf(int local_rank) const;
  int OwnerOf(int expert) const;
  // Where an expert begins in its owner's segment.
  size_t OffsetOf(int layer, int expert) const;
  platform::NamedMemory& At(int layer, int local_rank);

  HostPoolOptions options_;
  std::vector<platform::NamedMemory> segments_;  // by layer, then local rank; empty: not mapped yet
  std::unique_ptr<std::mutex> mutex_;            // of segments_, once it is sealed
};

}  // namespace moebius::moe
