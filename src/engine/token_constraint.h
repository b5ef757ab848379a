// What may come next in one request's output: a grammar, a schema, a list of choices. `text/` and
// others implement it over token ids; the engine asks for a mask before each draw and tells what
// was drawn. Owned by its request; called by the engine thread only.
#pragma once

#include <cstdint>
#include <span>

#include "base/ids.h"

namespace moebius::engine {

class TokenConstraint {
 public:
  virtual ~TokenConstraint() = default;

  // Sets bit t % 32 of mask[t / 32] for every token t that may come next and clears the others. At
  // least one bit must be set: where the output is complete, the end tokens' bits. It may be asked
  // more than once before the next Accept.
  virtual void FillMask(std::span<uint32_t> mask) = 0;

  // `token` was drawn (from the last mask).
  virtual void Accept(TokenId token) = 0;
};

}  // namespace moebius::engine
