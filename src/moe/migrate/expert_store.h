// A rank's expert weights as the one who moves them sees them: bytes in local slots that steps
// compute from, and a few staging slots that nobody computes from. The model implements it.
//
// Two threads: the mover's, while steps run, and the device thread, which calls Flip alone. Between
// Prepare and the Flip or Discard that answers it there is no other Write, and nobody reads while
// Flip runs: who moves weights sees to both.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "base/ids.h"
#include "base/result.h"
#include "moe/balance/policy.h"

namespace moebius::moe {

class ExpertStore {
 public:
  // What becomes of one layer: the new list of all its places, and this rank's slots of it that get
  // other weights.
  struct Change {
    struct Slot {
      int local_slot = 0;
      int staging = 0;
    };
    int layer = 0;
    SlotList experts;
    std::vector<Slot> slots;
  };

  // Bytes of an expert that lie elsewhere than in a slot, for as long as this does.
  struct Stored {
    std::span<const std::byte> bytes;
    std::optional<uint64_t> checksum;   // of the whole expert, where the source has kept one
    std::shared_ptr<const void> owner;  // of bytes that were made for the asker
  };

  virtual ~ExpertStore() = default;

  // `layer` counts the MoE layers of the whole model, here as everywhere below. 0: the layer is
  // another rank's.
  virtual size_t ExpertBytes(int layer) const = 0;
  // This rank's slots of a layer, none of another rank's.
  virtual int NumSlots(int layer) const = 0;
  // Shared by all layers.
  virtual int num_staging() const = 0;

  // Of what steps compute from now.
  virtual void Read(int layer, int local_slot, size_t offset, std::span<std::byte> out) const = 0;
  virtual void Write(int staging, size_t offset, std::span<const std::byte> in) = 0;
  // What lies there now.
  virtual void ReadStaging(int staging, size_t offset, std::span<std::byte> out) const = 0;

  // An expert's bytes from `offset` on, from elsewhere than a peer: as many as the source has at
  // once. kUnsupported: there is no such source.
  virtual Result<Stored> FromPool(int layer, ExpertId expert, size_t offset) = 0;
  virtual Result<Stored> FromCheckpoint(int layer, ExpertId expert, size_t offset) = 0;

  // Makes the tables of a change; nothing is visible yet. The changes of layers that are another
  // rank's are left out.
  virtual Status Prepare(std::vector<Change> changes) = 0;
  // The prepared change becomes the present, for the steps that come; staging slots are free again,
  // whatever is in them. Waits for nothing. The device thread, between steps.
  virtual void Flip() = 0;
  // The prepared change is dropped.
  virtual void Discard() = 0;
};

}  // namespace moebius::moe
