// The checksum of an expert's bytes, in whatever pieces they are added: a source says what it has,
// and what lies in a staging slot is held against that. One thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

struct XXH3_state_s;

namespace moebius::moe {

class ExpertChecksum {
 public:
  ExpertChecksum();

  void Add(std::span<const std::byte> bytes);
  // Of all that was added.
  uint64_t value() const;

 private:
  struct Free {
    void operator()(XXH3_state_s* state) const;
  };
  std::unique_ptr<XXH3_state_s, Free> state_;
};

}  // namespace moebius::moe
