// The draw of experts by wished probabilities: its check, and the host's.
#include <cmath>

#include "kernels/backend.h"
#include "kernels/op_checks.h"
#include "kernels/random.h"

namespace moebius::kernels {

void DrawLogits(ExecContext& ctx, const DrawLogitsArgs& args) {
  const int64_t rows = args.logits.rows;
  CheckF32(args.logits, rows, static_cast<int64_t>(args.log_probabilities.size()));
  CheckLength(args.tokens, rows);
  CheckLength(args.positions, rows);
  if (rows > 0) ctx.backend->draw_logits(ctx, args);
}

void DrawLogitsOnHost(ExecContext& ctx, const DrawLogitsArgs& args) {
  const size_t num_experts = args.log_probabilities.size();
  ctx.pool->RunRanges(args.logits.rows, 8, [&](int64_t begin, int64_t end, int /*thread_idx*/) {
    for (int64_t t = begin; t < end; ++t) {
      const auto row = static_cast<size_t>(t);
      const uint64_t seed = RoutingSeed(args.layer, args.tokens[row], args.positions[row]);
      float* out = args.logits.Row<float>(t);
      for (size_t e = 0; e < num_experts; ++e) {
        const float gumbel = -std::log(-std::log(OpenUniform(MixBits(seed + e))));
        out[e] = args.log_probabilities[e] + gumbel;
      }
    }
  });
}

}  // namespace moebius::kernels
