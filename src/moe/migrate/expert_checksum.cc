#include "moe/migrate/expert_checksum.h"

#include <xxhash.h>

#include "base/check.h"

namespace moebius::moe {

ExpertChecksum::ExpertChecksum() : state_(XXH3_createState()) {
  MOEBIUS_CHECK(state_ != nullptr);
  XXH3_64bits_reset(state_.get());
}

void ExpertChecksum::Add(std::span<const std::byte> bytes) {
  XXH3_64bits_update(state_.get(), bytes.data(), bytes.size());
}

uint64_t ExpertChecksum::value() const { return XXH3_64bits_digest(state_.get()); }

void ExpertChecksum::Free::operator()(XXH3_state_s* state) const { XXH3_freeState(state); }

}  // namespace moebius::moe
