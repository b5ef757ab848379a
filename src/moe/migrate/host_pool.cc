#include "moe/migrate/host_pool.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "base/check.h"
#include "base/log.h"
#include "base/math.h"
#include "moe/migrate/expert_checksum.h"
#include "moe/migrate/host_pool_names.h"
#include "platform/shared_memory_room.h"

namespace moebius::moe {
namespace {

int FirstExpertOf(const HostPoolOptions& options, int local_rank) {
  return static_cast<int>(int64_t{options.num_experts} * local_rank / options.num_local_ranks);
}

// Of an expert's checksum, from where the expert begins.
size_t ChecksumOffset(size_t expert_bytes) { return RoundUp(expert_bytes, sizeof(uint64_t)); }

size_t StrideOf(size_t expert_bytes) {
  return RoundUp(ChecksumOffset(expert_bytes) + sizeof(uint64_t), HostPool::kAlignment);
}

// Without the page that a segment has of its own; 0: the rank has no expert, or not of this layer.
size_t SegmentBytes(const HostPoolOptions& options, size_t layer, int local_rank) {
  const int count = FirstExpertOf(options, local_rank + 1) - FirstExpertOf(options, local_rank);
  const size_t bytes = options.expert_bytes[layer];
  return bytes > 0 ? StrideOf(bytes) * static_cast<size_t>(count) : 0;
}

Status CheckPoolOptions(const HostPoolOptions& options) {
  MOEBIUS_TRY(CheckHostPoolBase(options.base));
  constexpr size_t kMostBytes = size_t{1} << 40;  // of an expert
  constexpr int kMost = 1 << 16;
  const bool counts = options.num_experts > 0 && options.num_experts <= kMost &&
                      options.num_local_ranks > 0 && options.num_local_ranks <= kMost &&
                      options.local_rank >= 0 && options.local_rank < options.num_local_ranks;
  const bool sizes =
      std::ranges::all_of(options.expert_bytes, [](size_t bytes) { return bytes <= kMostBytes; }) &&
      std::ranges::any_of(options.expert_bytes, [](size_t bytes) { return bytes > 0; });
  if (counts && sizes) return {};
  return MakeError(ErrorCode::kInvalidArgument,
                   "host pool {}: {} experts in {} layers for local rank {} of {}: expected "
                   "experts, a rank below their number, and sizes of experts above 0",
                   options.base, options.num_experts, options.expert_bytes.size(),
                   options.local_rank, options.num_local_ranks);
}

// What ranks of this node have reserved already is not needed again. It is looked at last: what
// they take meanwhile makes the answer milder, and the reservation itself finds out.
Status CheckPoolFits(const HostPoolOptions& options) {
  MOEBIUS_ASSIGN(const platform::SharedMemoryRoom room,
                 platform::ReadSharedMemoryRoom(options.folder));
  const uint64_t total = HostPool::TotalBytes(options);
  uint64_t reserved = 0;
  for (const HostSegment& segment : ListHostSegments(options.base, options.folder)) {
    if (segment.info.state == platform::SegmentState::kLive) {
      reserved += segment.info.reserved_bytes;
    }
  }
  return platform::CheckRoom(room,
                             fmt::format("host pool {} (all experts of the node)", options.base),
                             total - std::min(total, reserved));
}

}  // namespace

size_t HostPool::TotalBytes(const HostPoolOptions& options) {
  size_t total = 0;
  for (size_t layer = 0; layer < options.expert_bytes.size(); ++layer) {
    for (int rank = 0; rank < options.num_local_ranks; ++rank) {
      const size_t bytes = SegmentBytes(options, layer, rank);
      const size_t page = platform::PageBytes();
      if (bytes > 0) total += RoundUp(bytes, page) + page;
    }
  }
  return total;
}

Result<HostPool> HostPool::Create(const HostPoolOptions& options) {
  MOEBIUS_TRY(CheckPoolOptions(options));
  for (const HostSegment& segment : ListHostSegments(options.base, options.folder)) {
    // Those of ranks that this start no longer has, too.
    if (segment.info.state != platform::SegmentState::kLeftOver) continue;
    MOEBIUS_ASSIGN(const bool removed, platform::RemoveLeftOver(segment.info.name, options.folder));
    if (removed) {
      LogInfo("{}/{}: removed {} bytes that pid {} left", options.folder, segment.info.name,
              segment.info.num_bytes, segment.info.owner);
    }
  }
  // Before memory: who has the name is the better reason.
  for (size_t layer = 0; layer < options.expert_bytes.size(); ++layer) {
    if (SegmentBytes(options, layer, options.local_rank) == 0) continue;
    const std::string name =
        HostSegmentName(options.base, static_cast<int>(layer), options.local_rank);
    MOEBIUS_TRY(platform::FreeSegmentName(name, options.folder));
  }
  MOEBIUS_TRY(CheckPoolFits(options));
  HostPool pool(options);
  for (size_t layer = 0; layer < options.expert_bytes.size(); ++layer) {
    const size_t bytes = SegmentBytes(options, layer, options.local_rank);
    if (bytes == 0) continue;
    const auto n = static_cast<int>(layer);
    const std::string name = HostSegmentName(options.base, n, options.local_rank);
    MOEBIUS_ASSIGN(pool.At(n, options.local_rank),
                   platform::NamedMemory::Create(name, bytes, options.folder));
  }
  return pool;
}

HostPool::HostPool(HostPoolOptions options)
    : options_(std::move(options)),
      segments_(options_.expert_bytes.size() * static_cast<size_t>(options_.num_local_ranks)),
      mutex_(std::make_unique<std::mutex>()) {}

int HostPool::FirstOf(int local_rank) const { return FirstExpertOf(options_, local_rank); }

int HostPool::OwnerOf(int expert) const {
  // The last rank whose share begins at or before it.
  return static_cast<int>((int64_t{expert + 1} * options_.num_local_ranks - 1) /
                          options_.num_experts);
}

platform::NamedMemory& HostPool::At(int layer, int local_rank) {
  return segments_[static_cast<size_t>(layer) * static_cast<size_t>(options_.num_local_ranks) +
                   static_cast<size_t>(local_rank)];
}

size_t HostPool::OffsetOf(int layer, int expert) const {
  const auto index = static_cast<size_t>(expert - FirstOf(OwnerOf(expert)));
  return index * StrideOf(options_.expert_bytes[static_cast<size_t>(layer)]);
}

void HostPool::Fill(int layer, int expert, std::span<const std::span<const std::byte>> parts) {
  MOEBIUS_CHECK(layer >= 0 && static_cast<size_t>(layer) < options_.expert_bytes.size());
  MOEBIUS_CHECK(expert >= first() && expert < end());
  const size_t size = options_.expert_bytes[static_cast<size_t>(layer)];
  std::byte* const begin =
      At(layer, options_.local_rank).writable().subspan(OffsetOf(layer, expert)).data();
  size_t done = 0;
  ExpertChecksum checksum;
  for (const std::span<const std::byte> part : parts) {
    MOEBIUS_CHECK_LE(part.size(), size - done);
    std::memcpy(begin + done, part.data(), part.size());
    checksum.Add(part);
    done += part.size();
  }
  MOEBIUS_CHECK_EQ(done, size);
  const uint64_t value = checksum.value();
  std::memcpy(begin + ChecksumOffset(size), &value, sizeof(value));
}

void HostPool::Seal() {
  for (size_t layer = 0; layer < options_.expert_bytes.size(); ++layer) {
    if (SegmentBytes(options_, layer, options_.local_rank) == 0) continue;
    At(static_cast<int>(layer), options_.local_rank).Publish();
  }
}

Result<HostPool::Entry> HostPool::Get(int layer, int expert) {
  MOEBIUS_CHECK(layer >= 0 && static_cast<size_t>(layer) < options_.expert_bytes.size());
  MOEBIUS_CHECK(expert >= 0 && expert < options_.num_experts);
  const int owner = OwnerOf(expert);
  const std::lock_guard lock(*mutex_);
  platform::NamedMemory& memory = At(layer, owner);
  if (memory.bytes().empty()) {
    const std::string name = HostSegmentName(options_.base, layer, owner);
    MOEBIUS_ASSIGN(platform::NamedMemory opened,
                   platform::NamedMemory::Open(name, options_.folder));
    const size_t expected =
        RoundUp(SegmentBytes(options_, static_cast<size_t>(layer), owner), platform::PageBytes());
    if (opened.bytes().size() != expected) {
      return MakeError(
          ErrorCode::kCorrupt, "{}/{}: holds {} bytes, expected {}: {} experts of {} bytes each",
          options_.folder, name, opened.bytes().size(), expected,
          FirstOf(owner + 1) - FirstOf(owner), options_.expert_bytes[static_cast<size_t>(layer)]);
    }
    memory = std::move(opened);
  }
  const size_t size = options_.expert_bytes[static_cast<size_t>(layer)];
  Entry entry{.bytes = memory.bytes().subspan(OffsetOf(layer, expert), size)};
  std::memcpy(&entry.checksum, entry.bytes.data() + ChecksumOffset(size), sizeof(entry.checksum));
  return entry;
}

}  // namespace moebius::moe
