#include "model/expert_slots.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <utility>

#include "base/check.h"
#include "platform/thread_pool.h"

namespace moebius::model {
namespace {

using kernels::PackedWeight;

size_t PackedBytesOf(const PackedWeight& weight) {
  return kernels::PackedBytes(weight.format, weight.n, weight.k, weight.gated);
}

bool IsAlike(const PackedWeight& a, const PackedWeight& b) {
  return a.format == b.format && a.n == b.n && a.k == b.k;
}

// The same weight at another place: its scales follow its data.
void MoveTo(std::byte* data, PackedWeight* weight) {
  if (weight->scales != nullptr) {
    const auto distance = reinterpret_cast<const std::byte*>(weight->scales) -
                          static_cast<const std::byte*>(weight->data);
    weight->scales = reinterpret_cast<const float*>(data + distance);
  }
  weight->data = data;
}

std::byte* DataOf(const PackedWeight& weight) {
  return const_cast<std::byte*>(static_cast<const std::byte*>(weight.data));
}

}  // namespace

Result<std::unique_ptr<ExpertSlots>> ExpertSlots::Create(std::vector<Layer> layers,
                                                         const Options& options) {
  for (const Layer& layer : layers) {
    const MoeLayer& own = *layer.layer;
    const MoeLayer& first = *layers.front().layer;
    if (IsAlike(own.gate_up.front(), first.gate_up.front()) &&
        IsAlike(own.down.front(), first.down.front())) {
      continue;
    }
    return MakeError(
        ErrorCode::kUnsupported,
        "experts of MoE layer {} are {} of {} x {}, those of layer {} {} of {} x {}, expected all "
        "alike where they move between slots while serving (layer_updates_per_iter 0 leaves them)",
        own.index, WeightFormatName(own.down.front().format), own.down.front().n,
        own.down.front().k, first.index, WeightFormatName(first.down.front().format),
        first.down.front().n, first.down.front().k);
  }
  return std::unique_ptr<ExpertSlots>(new ExpertSlots(std::move(layers), options));
}

ExpertSlots::ExpertSlots(std::vector<Layer> layers, const Options& options)
    : options_(options), layers_(std::move(layers)) {
  if (layers_.empty()) return;  // a pipeline stage without experts
  const MoeLayer& first = *layers_.front().layer;
  gate_up_bytes_ = PackedBytesOf(first.gate_up.front());
  down_bytes_ = PackedBytesOf(first.down.front());
  const size_t expert_bytes = gate_up_bytes_ + down_bytes_;
  MOEBIUS_CHECK_EQ(options_.staging.size(),
                   static_cast<size_t>(options_.num_staging) * expert_bytes);
  for (int i = 0; i < options_.num_staging; ++i) {
    std::byte* const begin = options_.staging.data() + static_cast<size_t>(i) * expert_bytes;
    staging_.push_back({begin, begin + gate_up_bytes_});
  }
}

ExpertSlots::Layer* ExpertSlots::Find(int layer) const {
  const auto found = std::ranges::find_if(
      layers_, [layer](const Layer& own) { return own.layer->index == layer; });
  return found == layers_.end() ? nullptr : &*found;
}

ExpertSlots::Place ExpertSlots::PlaceOf(const MoeLayer& layer, int local_slot) {
  const auto slot = static_cast<size_t>(local_slot);
  return {DataOf(layer.gate_up[slot]), DataOf(layer.down[slot])};
}

double ExpertSlots::FlopsOfRow() const {
  if (layers_.empty()) return 0;
  const auto flops = [](const kernels::PackedWeight& weight) {
    return 2.0 * static_cast<double>(weight.n * weight.k) * (weight.gated ? 2 : 1);
  };
  const MoeLayer& first = *layers_.front().layer;
  return flops(first.gate_up.front()) + flops(first.down.front());
}

size_t ExpertSlots::ExpertBytes(int layer) const {
  return Find(layer) != nullptr ? gate_up_bytes_ + down_bytes_ : 0;
}

int ExpertSlots::NumSlots(int layer) const {
  const Layer* const own = Find(layer);
  return own != nullptr ? static_cast<int>(own->layer->down.size()) : 0;
}

template <typename Body>
void ExpertSlots::ForBytes(const Place& place, size_t offset, size_t count,
                           const Body& body) const {
  MOEBIUS_CHECK_LE(offset + count, gate_up_bytes_ + down_bytes_);
  const size_t in_first = offset < gate_up_bytes_ ? std::min(count, gate_up_bytes_ - offset) : 0;
  if (in_first > 0) body(std::span(place.gate_up + offset, in_first), size_t{0});
  if (in_first == count) return;
  body(std::span(place.down + (offset + in_first - gate_up_bytes_), count - in_first), in_first);
}

void ExpertSlots::ReadPlace(const Place& place, size_t offset, std::span<std::byte> out) const {
  ForBytes(place, offset, out.size(), [&](std::span<const std::byte> bytes, size_t begin) {
    std::memcpy(out.data() + begin, bytes.data(), bytes.size());
  });
}

void ExpertSlots::Read(int layer, int local_slot, size_t offset, std::span<std::byte> out) const {
  ReadPlace(PlaceOf(*Find(layer)->layer, local_slot), offset, out);
}

void ExpertSlots::ReadStaging(int staging, size_t offset, std::span<std::byte> out) const {
  ReadPlace(staging_[static_cast<size_t>(staging)], offset, out);
}

void ExpertSlots::Write(int staging, size_t offset, std::span<const std::byte> in) {
  ForBytes(staging_[static_cast<size_t>(staging)], offset, in.size(),
           [&](std::span<std::byte> bytes, size_t begin) {
             std::memcpy(bytes.data(), in.data() + begin, bytes.size());
           });
}

Result<moe::ExpertStore::Stored> ExpertSlots::FromPool(int layer, ExpertId expert, size_t offset) {
  if (!pool_) return MakeError(ErrorCode::kUnsupported, "there is no host pool");
  MOEBIUS_ASSIGN(const moe::HostPool::Entry entry, pool_->Get(layer, expert.value()));
  return Stored{.bytes = entry.bytes.subspan(offset), .checksum = entry.checksum, .owner = {}};
}

Status ExpertSlots::UsePool(moe::HostPool pool) {
  for (const Layer& layer : layers_) {
    for (int expert = pool.first(); expert < pool.end(); ++expert) {
      MOEBIUS_TRY(FillPool(pool, *layer.layer, expert));
    }
  }
  pool.Seal();
  pool_ = std::move(pool);
  return {};
}

int ExpertSlots::LocalSlotOf(const MoeLayer& layer, int expert) const {
  for (const int32_t slot : layer.placement.slots(ExpertId(expert))) {
    if (slot / options_.slots_per_rank == options_.rank) return slot % options_.slots_per_rank;
  }
  return -1;
}

Status ExpertSlots::FillPool(moe::HostPool& pool, const MoeLayer& layer, int expert) {
  if (const int slot = LocalSlotOf(layer, expert); slot >= 0) {
    const Place place = PlaceOf(layer, slot);
    pool.Fill(layer.index, expert,
              std::array{std::span<const std::byte>(place.gate_up, gate_up_bytes_),
                         std::span<const std::byte>(place.down, down_bytes_)});
    return {};
  }
  const auto read = [&](size_t offset) {
    return FromCheckpoint(layer.index, ExpertId(expert), offset);
  };
  MOEBIUS_ASSIGN(const Stored gate_up, read(0));
  MOEBIUS_ASSIGN(const Stored down, read(gate_up_bytes_));
  pool.Fill(layer.index, expert, std::array{gate_up.bytes, down.bytes});
  return {};
}

// Read and packed as at the start, beside the slots: one of the two packed matrices at a time, so
// that the mover can look at who asks it in between.
Result<moe::ExpertStore::Stored> ExpertSlots::FromCheckpoint(int layer, ExpertId expert,
                                                             size_t offset) {
  const Layer& own = *Find(layer);
  const ExpertMatrices matrices = own.matrices_of(expert.value());
  const bool is_first = offset < gate_up_bytes_;
  WeightPlan plan(*options_.source, options_.act);
  plan.set_show_progress(false);
  std::vector<PackedWeight> packed;
  if (is_first) {
    plan.GatedGroup(Part::kRoutedExperts, {matrices.gate}, {matrices.up}, &packed);
  } else {
    plan.Group(Part::kRoutedExperts, {matrices.down}, &packed);
  }
  MOEBIUS_TRY(plan.status());
  const auto pool = platform::ThreadPool::Create({platform::AllowedCpus().front()});
  MOEBIUS_ASSIGN(std::unique_ptr<platform::Memory> memory, plan.Load(*pool));
  const PackedWeight& expected = is_first ? own.layer->gate_up.front() : own.layer->down.front();
  if (!IsAlike(packed.front(), expected)) {
    return MakeError(ErrorCode::kUnsupported,
                     "expert {} of MoE layer {} alone is packed as {}, expected {} as with all "
                     "others",
                     expert.value(), layer, WeightFormatName(packed.front().format),
                     WeightFormatName(expected.format));
  }
  const std::span<const std::byte> bytes(DataOf(packed.front()),
                                         is_first ? gate_up_bytes_ : down_bytes_);
  return Stored{.bytes = bytes.subspan(is_first ? offset : offset - gate_up_bytes_),
                .checksum = {},
                .owner = std::move(memory)};
}

Status ExpertSlots::Prepare(std::vector<Change> changes) {
  prepared_.clear();
  for (Change& change : changes) {
    Layer* const layer = Find(change.layer);
    if (layer == nullptr) continue;
    auto placement =
        moe::Placement::Create(layer->layer->placement.num_experts(), std::move(change.experts));
    if (!placement) {
      prepared_.clear();
      return tl::unexpected(placement.error());
    }
    moe::SlotTable slots(*placement, options_.slots_per_rank, options_.home);
    prepared_.push_back({layer, *std::move(placement), std::move(slots), std::move(change.slots)});
  }
  return {};
}

void ExpertSlots::Flip() {
  for (Prepared& prepared : prepared_) {
    MoeLayer& layer = *prepared.layer->layer;
    for (const Change::Slot& changed : prepared.changed) {
      const auto slot = static_cast<size_t>(changed.local_slot);
      const Place before = PlaceOf(layer, changed.local_slot);
      Place& staged = staging_[static_cast<size_t>(changed.staging)];
      MoveTo(staged.gate_up, &layer.gate_up[slot]);
      MoveTo(staged.down, &layer.down[slot]);
      staged = before;
    }
    layer.placement = std::move(prepared.placement);
    layer.slots = std::move(prepared.slots);
    layer.first_slot = layer.slots.first_slot();
  }
  prepared_.clear();
}

}  // namespace moebius::model
