#include "model/expert_slots.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <utility>

#include "base/check.h"
#include "base/math.h"
#include "platform/thread_pool.h"

namespace moebius::model {
namespace {

using kernels::PackedWeight;

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

// A place's parts follow each other in a staging slot, each at a multiple of 64.
ExpertSlots::ExpertSlots(std::vector<Layer> layers, const Options& options)
    : options_(options), layers_(std::move(layers)) {
  if (layers_.empty()) return;  // a pipeline stage without experts
  const Place shape = PlaceOf(*layers_.front().layer, 0);
  for (const std::span<std::byte> part : shape) expert_bytes_ += part.size();
  std::byte* next = options_.staging.data();
  for (int i = 0; i < options_.num_staging; ++i) {
    Place& place = staging_.emplace_back();
    for (size_t part = 0; part < shape.size(); ++part) {
      place[part] = {next, shape[part].size()};
      next += RoundUp(shape[part].size(), Arena::kAlignment);
    }
  }
  MOEBIUS_CHECK_EQ(next - options_.staging.data(), std::ssize(options_.staging));
}

ExpertSlots::Layer* ExpertSlots::Find(int layer) const {
  const auto found = std::ranges::find_if(
      layers_, [layer](const Layer& own) { return own.layer->index == layer; });
  return found == layers_.end() ? nullptr : &*found;
}

ExpertSlots::Place ExpertSlots::PlaceOf(const PackedWeight& gate_up,
                                        const PackedWeight& down) const {
  Place place;
  size_t part = 0;
  for (const PackedWeight* w : {&gate_up, &down}) {
    const bool panels = options_.layout == kernels::WeightLayout::kPanels;
    const size_t data_bytes = panels ? kernels::PackedBytes(w->format, w->n, w->k, w->gated)
                                     : kernels::RowsDataBytes(w->format, w->n, w->k, w->gated);
    place[part++] = {DataOf(*w), data_bytes};
    if (!panels) {
      place[part] = {reinterpret_cast<std::byte*>(const_cast<float*>(w->scales)),
                     kernels::RowsScaleBytes(w->format, w->n, w->k, w->gated)};
    }
    ++part;
  }
  return place;
}

ExpertSlots::Place ExpertSlots::PlaceOf(const MoeLayer& layer, int local_slot) const {
  const auto slot = static_cast<size_t>(local_slot);
  return PlaceOf(layer.gate_up[slot], layer.down[slot]);
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
  return Find(layer) != nullptr ? expert_bytes_ : 0;
}

int ExpertSlots::NumSlots(int layer) const {
  const Layer* const own = Find(layer);
  return own != nullptr ? static_cast<int>(own->layer->down.size()) : 0;
}

template <typename Body>
void ExpertSlots::ForBytes(const Place& place, size_t offset, size_t count,
                           const Body& body) const {
  MOEBIUS_CHECK_LE(offset + count, expert_bytes_);
  size_t done = 0;
  size_t begin = 0;  // of the part
  for (const std::span<std::byte> part : place) {
    const size_t first = offset + done - begin;
    if (done < count && first < part.size()) {
      const size_t length = std::min(count - done, part.size() - first);
      body(part.subspan(first, length), done);
      done += length;
    }
    begin += part.size();
  }
}

void ExpertSlots::Copy(void* to, const void* from, size_t num_bytes) const {
  if (options_.copies != nullptr) {
    options_.copies->Copy(to, from, num_bytes);
  } else {
    std::memcpy(to, from, num_bytes);
  }
}

void ExpertSlots::WaitForCopies() const {
  if (options_.copies != nullptr) options_.copies->Wait();
}

void ExpertSlots::ReadPlace(const Place& place, size_t offset, std::span<std::byte> out) const {
  ForBytes(place, offset, out.size(), [&](std::span<const std::byte> bytes, size_t begin) {
    Copy(out.data() + begin, bytes.data(), bytes.size());
  });
  WaitForCopies();
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
             Copy(bytes.data(), in.data() + begin, bytes.size());
           });
  WaitForCopies();
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
    std::vector<std::byte> bytes(expert_bytes_);  // a device's are not for the host to read
    Read(layer.index, slot, 0, bytes);
    pool.Fill(layer.index, expert, std::array{std::span<const std::byte>(bytes)});
    return {};
  }
  std::vector<Stored> parts;
  std::vector<std::span<const std::byte>> bytes;
  for (size_t offset = 0; offset < expert_bytes_; offset += bytes.back().size()) {
    MOEBIUS_ASSIGN(Stored part, FromCheckpoint(layer.index, ExpertId(expert), offset));
    bytes.push_back(part.bytes);
    parts.push_back(std::move(part));
  }
  pool.Fill(layer.index, expert, bytes);
  return {};
}

// Read and packed as at the start, beside the slots: a part of the two packed matrices at a time,
// so that the mover can look at who asks it in between.
Result<moe::ExpertStore::Stored> ExpertSlots::FromCheckpoint(int layer, ExpertId expert,
                                                             size_t offset) {
  const Layer& own = *Find(layer);
  const PackedWeight& gate_up = own.layer->gate_up.front();
  const PackedWeight& down = own.layer->down.front();
  const Place shape = PlaceOf(gate_up, down);
  size_t part = 0;
  size_t begin = 0;
  while (offset - begin >= shape[part].size()) begin += shape[part++].size();
  const bool is_first = part < shape.size() / 2;
  const ExpertMatrices matrices = own.matrices_of(expert.value());
  WeightPlan plan(*options_.source, options_.act, options_.layout);
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
  const PackedWeight& expected = is_first ? gate_up : down;
  if (!IsAlike(packed.front(), expected)) {
    return MakeError(ErrorCode::kUnsupported,
                     "expert {} of MoE layer {} alone is packed as {}, expected {} as with all "
                     "others",
                     expert.value(), layer, WeightFormatName(packed.front().format),
                     WeightFormatName(expected.format));
  }
  const Place place = is_first ? PlaceOf(packed.front(), down) : PlaceOf(gate_up, packed.front());
  return Stored{
      .bytes = place[part].subspan(offset - begin), .checksum = {}, .owner = std::move(memory)};
}

Status ExpertSlots::Prepare(std::vector<Change> changes) {
  prepared_.clear();
  std::vector<std::vector<int32_t>> tables;  // until they are copied
  for (Change& change : changes) {
    Layer* const layer = Find(change.layer);
    if (layer == nullptr) continue;
    auto placement =
        moe::Placement::Create(layer->layer->placement.num_experts(), std::move(change.experts));
    if (!placement) {
      WaitForCopies();
      prepared_.clear();
      return tl::unexpected(placement.error());
    }
    moe::SlotTable slots(*placement, options_.slots_per_rank, options_.home);
    if (options_.copies != nullptr) {
      tables.push_back(options_.table.WordsOf(slots));
      Copy(layer->next_table, tables.back().data(), options_.table.num_bytes());
    }
    prepared_.push_back({layer, *std::move(placement), std::move(slots), std::move(change.slots)});
  }
  WaitForCopies();
  Status copied = options_.copies != nullptr ? options_.copies->status() : Status();
  if (!copied) prepared_.clear();
  return copied;
}

void ExpertSlots::FlipInOrder(Prepared& prepared) {
  moe::ExpertCopies& copies = *options_.copies;
  const Layer& own = *prepared.layer;
  for (const Change::Slot& changed : prepared.changed) {
    const Place place = PlaceOf(*own.layer, changed.local_slot);
    const Place& staged = staging_[static_cast<size_t>(changed.staging)];
    for (size_t part = 0; part < place.size(); ++part) {
      copies.Queue(place[part].data(), staged[part].data(), place[part].size());
    }
  }
  copies.Queue(own.table, own.next_table, options_.table.num_bytes());
  own.layer->placement = std::move(prepared.placement);
  own.layer->slots = std::move(prepared.slots);
}

void ExpertSlots::Flip() {
  if (options_.copies != nullptr) {
    for (Prepared& prepared : prepared_) FlipInOrder(prepared);
    if (!prepared_.empty()) options_.copies->EndOfQueue();
    prepared_.clear();
    return;
  }
  for (Prepared& prepared : prepared_) {
    MoeLayer& layer = *prepared.layer->layer;
    for (const Change::Slot& changed : prepared.changed) {
      const auto slot = static_cast<size_t>(changed.local_slot);
      const Place before = PlaceOf(layer, changed.local_slot);
      Place& staged = staging_[static_cast<size_t>(changed.staging)];
      MoveTo(staged[0].data(), &layer.gate_up[slot]);
      MoveTo(staged[2].data(), &layer.down[slot]);
      staged = before;
    }
    layer.placement = std::move(prepared.placement);
    layer.slots = std::move(prepared.slots);
    layer.first_slot = layer.slots.first_slot();
    layer.replicas = layer.slots.replicas();
  }
  prepared_.clear();
}

}  // namespace moebius::model
