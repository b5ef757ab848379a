#include "layout/parallel_layout.h"

#include <algorithm>

#include "base/check.h"

namespace moebius::layout {
namespace {

// What MakeLayout knows while it fills the rows. A dense model's DP ranks are apart: copies that
// share nothing.
struct Context {
  const ParallelConfig& config;
  const ModelNumbers& model;
  int tp;
  int dp;
  int group;  // TP x DP
  bool moe;
  bool ep;
  bool cutting;
  bool own;  // own ranks: outputs are cut and gathered

  // What a TP group does with slices.
  Collective joins() const { return own ? Collective::kAllGather : Collective::kAllReduce; }
};

std::string Fraction(int ways) { return ways == 1 ? "all" : fmt::format("1/{}", ways); }

// A part that lives in the TP group of each DP rank: heads, columns or rows are cut TP ways and
// every DP rank has a copy. `after` sums or joins the slices.
PartLayout InTpGroup(const Context& c, Part part, Collective after, const std::string& of_what) {
  PartLayout row{.part = part};
  row.ways = c.tp;
  row.copies = c.dp;
  if (c.tp > 1) {
    row.holding = Holding::kSharded;
    row.after = after;
    row.group = c.tp;
    row.text = fmt::format("1/{} of {}", c.tp, of_what);
    if (c.dp > 1) row.text += fmt::format(", the same in each of {} DP ranks", c.dp);
  } else {
    row.holding = c.dp > 1 ? Holding::kCopied : Holding::kWhole;
    row.text = fmt::format("all of {}", of_what);
    if (c.dp > 1) row.text += fmt::format(" on each of {} DP ranks", c.dp);
  }
  return row;
}

// The same by own ranks: each brings its share of the rows, and everyone gets all of them, then all
// columns.
PartLayout CutByOutputs(const Context& c, Part part, const std::string& of_what) {
  PartLayout row{.part = part, .holding = Holding::kSharded, .ways = c.group};
  row.before = row.after = Collective::kAllGather;
  row.group = c.group;
  row.text = fmt::format("1/{} of {}, for the tokens of all {} ranks", c.group, of_what, c.group);
  return row;
}

// A part that is cut over the whole flattened group: tokens of all DP ranks are gathered for it.
PartLayout OverGroup(const Context& c, Part part, Collective after, const std::string& of_what) {
  if (c.own && c.moe && c.group > 1) return CutByOutputs(c, part, of_what);
  if (c.dp == 1) return InTpGroup(c, part, Collective::kAllReduce, of_what);
  PartLayout row{.part = part, .holding = Holding::kSharded, .ways = c.group};
  row.before = Collective::kAllGather;
  row.after = after;
  row.group = c.dp;
  if (c.tp > 1) {
    row.last = Collective::kAllReduce;
    row.last_group = c.tp;
  }
  row.text = fmt::format("1/{} of {}, for the tokens of all {} DP ranks", c.group, of_what, c.dp);
  return row;
}

PartLayout Attention(const Context& c) {
  PartLayout row = InTpGroup(c, Part::kAttention, c.joins(),
                             fmt::format("the {} query heads", c.model.num_heads));
  if (c.model.mla && c.tp > 1) row.text += "; the projections into the latent are copied";
  return row;
}

PartLayout RoutedExperts(const Context& c) {
  if (!c.moe) return {.part = Part::kRoutedExperts, .holding = Holding::kNone, .text = "none"};
  if (c.group == 1) {
    return {.part = Part::kRoutedExperts,
            .text = fmt::format("all {} experts, whole", c.model.num_experts)};
  }
  if (!c.ep) {
    return OverGroup(
        c, Part::kRoutedExperts, Collective::kReduceScatter,
        fmt::format("each of the {} experts (a slice of its width)", c.model.num_experts));
  }
  PartLayout row{.part = Part::kRoutedExperts, .holding = Holding::kSplit, .ways = c.group};
  row.group = c.group;
  const int64_t slots = c.model.num_experts + c.config.num_redundant_experts;
  row.text = fmt::format("{} whole experts", slots / c.group);
  if (slots % c.group != 0) {
    row.text = fmt::format("{} or {} whole experts", slots / c.group, slots / c.group + 1);
  }
  row.text += fmt::format(" of {}", c.model.num_experts);
  if (c.config.num_redundant_experts > 0) {
    row.text += fmt::format(" (+{} redundant)", c.config.num_redundant_experts);
  }
  if (c.dp == 1 && !c.own) {
    // Tokens are on every TP rank already: each adds what its own experts give.
    row.after = Collective::kAllReduce;
    return row;
  }
  const bool gather = c.config.all2all_backend == ExchangeBackend::kAllGatherReduceScatter;
  row.before = gather ? Collective::kAllGather : Collective::kAllToAll;
  row.after = gather ? Collective::kReduceScatter : Collective::kAllToAll;
  if (c.cutting) {
    row.last = Collective::kAllGather;
    row.last_group = c.tp;
    row.text += fmt::format("; each TP rank brings 1/{} of the tokens", c.tp);
  }
  return row;
}

PartLayout SharedExperts(const Context& c) {
  if (c.model.shared_intermediate_size == 0) {
    return {.part = Part::kSharedExperts, .holding = Holding::kNone, .text = "none"};
  }
  const std::string of_what = "the shared experts' width";
  if (c.own && !c.ep && c.group > 1) return CutByOutputs(c, Part::kSharedExperts, of_what);
  if (c.cutting) {
    return {.part = Part::kSharedExperts,
            .holding = Holding::kCopied,
            .copies = c.group,
            .text = "all of the shared experts (the tokens are cut instead)"};
  }
  return InTpGroup(c, Part::kSharedExperts, Collective::kAllReduce, of_what);
}

PartLayout DenseFfn(const Context& c) {
  if (c.model.dense_intermediate_size == 0) {
    return {.part = Part::kDenseFfn, .holding = Holding::kNone, .text = "none"};
  }
  const std::string of_what = "the dense FFN's width";
  if (c.moe && !c.own && c.config.dense_ffn == PartPlacement::kTp) {
    return OverGroup(c, Part::kDenseFfn, Collective::kReduceScatter, of_what);
  }
  return InTpGroup(c, Part::kDenseFfn, c.joins(), of_what);
}

PartLayout LmHead(const Context& c) {
  if (c.moe && !c.own && c.dp > 1 && c.config.lm_head == PartPlacement::kTp) {
    // Each rank has a slice of the vocabulary for all tokens and needs all of it for its own.
    PartLayout row = OverGroup(c, Part::kLmHead, Collective::kAllToAll, "the vocabulary");
    if (c.tp > 1) row.last = Collective::kAllGather;
    return row;
  }
  return InTpGroup(c, Part::kLmHead, Collective::kAllGather, "the vocabulary");
}

PartLayout KvCache(const Context& c) {
  PartLayout row{.part = Part::kKvCache};
  const int64_t heads = c.model.mla ? 1 : std::max<int64_t>(1, c.model.num_kv_heads);
  const int pieces = static_cast<int>(std::min<int64_t>(c.tp, heads));
  const int by_token = c.config.decode_context_parallel_size;
  row.copies = c.tp / pieces / by_token;
  row.ways = pieces * by_token * c.dp;
  std::string what = c.model.mla ? "the latent" : fmt::format("the {} KV heads", heads);
  what = pieces == 1 ? "all of " + what : fmt::format("{} of {}", Fraction(pieces), what);
  if (by_token > 1) what = fmt::format("1/{} of the tokens, {}", by_token, what);
  if (c.dp > 1) {
    row.holding = Holding::kPartitioned;
    row.text = fmt::format("{} of the requests of its own DP rank (1 of {})", what, c.dp);
  } else if (pieces > 1 || by_token > 1) {
    row.holding = Holding::kSharded;
    row.text = fmt::format("{} of every request", what);
  } else {
    row.holding = c.tp > 1 ? Holding::kCopied : Holding::kWhole;
    row.text = fmt::format("{} of every request", what);
  }
  if (row.copies > 1) row.text += fmt::format(", held {} times in the TP group", row.copies);
  return row;
}

}  // namespace

ParallelLayout MakeLayout(const ParallelConfig& config, const ModelNumbers& model) {
  MOEBIUS_CHECK_GE(config.tensor_parallel_size, 1);
  MOEBIUS_CHECK_GE(config.data_parallel_size, 1);
  MOEBIUS_CHECK_GE(config.pipeline_parallel_size, 1);
  const bool moe = model.num_experts > 0;
  Context c{config,
            model,
            config.tensor_parallel_size,
            config.data_parallel_size,
            config.expert_group(),
            moe,
            moe && config.expert_parallel_active(),
            false,
            config.own_ranks};
  c.cutting = c.ep && c.tp > 1 && (c.dp > 1 || c.own);

  ParallelLayout layout;
  layout.config = config;
  layout.expert_parallel_size = c.ep ? c.group : 1;
  layout.expert_tensor_parallel_size = c.ep || !moe ? 1 : c.group;
  layout.exchanges = c.ep && (c.dp > 1 || c.own);
  layout.token_cutting = c.cutting;
  if (config.pipeline_parallel_size > 1) layout.between_stages = Collective::kSendRecv;
  layout.parts = {
      Attention(c),
      RoutedExperts(c),
      SharedExperts(c),
      DenseFfn(c),
      InTpGroup(c, Part::kEmbedding, c.joins(), c.own ? "the hidden columns" : "the vocabulary"),
      LmHead(c),
      KvCache(c)};
  if (c.ep) {
    layout.slots_per_rank =
        ExpertsPerRank(model.num_experts + config.num_redundant_experts, c.group);
  } else if (moe) {
    layout.slots_per_rank.assign(static_cast<size_t>(c.group), model.num_experts);
  }
  return layout;
}

}  // namespace moebius::layout
