// A rank's expert weights as balancing moves them (moe/migrate/expert_store.h): the slots of its
// MoE layers, and staging slots beside them of the same size. A slot's weights are two packed
// matrices; as bytes they follow each other. Owned by the model, whose layers it changes; threads
// as in the interface.
//
// On the host a flip makes slots and staging slots change memory. Where steps run behind the host
// (Options::copies) what they read stays where it is, so that graphs stay as they are, and a flip
// queues copies of its contents between two steps: weights and routing tables out of their staging
// places. These are free again when the copies are done, for which the next ones wait.
#pragma once

#include <array>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "model/layers.h"
#include "model/weight_plan.h"
#include "moe/migrate/expert_copies.h"
#include "moe/migrate/expert_store.h"
#include "moe/migrate/host_pool.h"
#include "moe/slot_table_block.h"

namespace moebius::model {

// Of one expert, in the checkpoint.
struct ExpertMatrices {
  Matrix gate;
  Matrix up;
  Matrix down;
};

class ExpertSlots final : public moe::ExpertStore {
 public:
  struct Layer {
    MoeLayer* layer = nullptr;  // filled
    std::function<ExpertMatrices(int64_t expert)> matrices_of;
    // With copies: the block that routing reads, and where the next one waits.
    std::byte* table = nullptr;
    std::byte* next_table = nullptr;
  };
  struct Options {
    int slots_per_rank = 1;
    int rank = 0;                          // this one, among those that share the slots
    int home = 0;                          // SlotTable's
    DType act = DType::kF32;               // of activations
    const TensorSource* source = nullptr;  // of the checkpoint; outlives this
    std::span<std::byte> staging;          // num_staging experts; at a multiple of 64
    int num_staging = 0;
    kernels::WeightLayout layout = kernels::WeightLayout::kPanels;
    moe::ExpertCopies* copies = nullptr;  // null: what steps read is the host's own
    moe::SlotTableBlock table;            // with copies: of the layers' tables
  };
  // kUnsupported: the experts of two layers differ in size or format, so that slots cannot change
  // hands.
  static Result<std::unique_ptr<ExpertSlots>> Create(std::vector<Layer> layers,
                                                     const Options& options);

  // The pool's share of this rank, from its slots or the checkpoint; then experts are fetched from
  // there, too. Before anything moves.
  Status UsePool(moe::HostPool pool);

  // Operations that a row takes in an expert of this rank's, a multiplication and its addition
  // being two; 0: there are none.
  double FlopsOfRow() const;

  size_t ExpertBytes(int layer) const override;
  int NumSlots(int layer) const override;
  int num_staging() const override { return static_cast<int>(staging_.size()); }
  void Read(int layer, int local_slot, size_t offset, std::span<std::byte> out) const override;
  void Write(int staging, size_t offset, std::span<const std::byte> in) override;
  void ReadStaging(int staging, size_t offset, std::span<std::byte> out) const override;
  Result<Stored> FromPool(int layer, ExpertId expert, size_t offset) override;
  Result<Stored> FromCheckpoint(int layer, ExpertId expert, size_t offset) override;
  Status Prepare(std::vector<Change> changes) override;
  void Flip() override;
  void Discard() override { prepared_.clear(); }

 private:
  // Where the weights of a slot lie, in the order of its bytes: gate and up, their scales, down,
  // its scales. In panels scales are part of the matrix.
  using Place = std::array<std::span<std::byte>, 4>;
  // What becomes of a layer.
  struct Prepared {
    Layer* layer = nullptr;
    moe::Placement placement;
    moe::SlotTable slots;
    std::vector<Change::Slot> changed;
  };

  ExpertSlots(std::vector<Layer> layers, const Options& options);
  Layer* Find(int layer) const;
  Place PlaceOf(const kernels::PackedWeight& gate_up, const kernels::PackedWeight& down) const;
  Place PlaceOf(const MoeLayer& layer, int local_slot) const;
  void Copy(void* to, const void* from, size_t num_bytes) const;
  void WaitForCopies() const;
  void FlipInOrder(Prepared& prepared);
  // Negative: no slot of this rank holds it.
  int LocalSlotOf(const MoeLayer& layer, int expert) const;
  Status FillPool(moe::HostPool& pool, const MoeLayer& layer, int expert);
  // body(place's bytes, offset in the caller's span) for bytes [offset, offset + count) of a place.
  template <typename Body>
  void ForBytes(const Place& place, size_t offset, size_t count, const Body& body) const;
  void ReadPlace(const Place& place, size_t offset, std::span<std::byte> out) const;

  const Options options_;
  mutable std::vector<Layer> layers_;
  std::vector<Place> staging_;
  std::vector<Prepared> prepared_;
  std::optional<moe::HostPool> pool_;
  size_t expert_bytes_ = 0;
};

}  // namespace moebius::model
