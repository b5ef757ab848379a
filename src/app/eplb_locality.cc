// moebius eplb locality: where tokens are sent to with a placement, by the rule that chooses among
// copies: ours and TensorRT-LLM's.
#include <fmt/core.h>
#include <CLI/CLI.hpp>

#include <nlohmann/json.hpp>

#include "app/commands.h"
#include "app/eplb.h"
#include "app/eplb_input.h"
#include "app/flag_kinds.h"
#include "moe/balance/load_trace.h"
#include "moe/balance/locality.h"

namespace moebius::app {
namespace {

constexpr int kMostLayers = 1 << 10;

struct RuleName {
  const char* name;
  moe::CopyRule rule;
};
constexpr RuleName kRules[] = {{"round robin", moe::CopyRule::kRoundRobin},
                               {"nearest", moe::CopyRule::kNearest}};

class EplbLocality : public EplbVerb {
 public:
  void AddFlags(CLI::App* app) override {
    AddShapeFlags(app, shape_);
    constexpr const char* kLoads = "Made-up loads and tokens";
    AddNumber(app, "--layers", num_layers_, "MoE layers", 1, kMostLayers)->group(kLoads);
    AddNumber(app, "--experts", num_experts_, "Experts of a layer", 1, 1 << 14)->group(kLoads);
    AddNumber(app, "--top-k", top_k_, "Experts of a token", 1, 64)->group(kLoads);
    AddNumber(app, "--sigma", sigma_, "Of the log-normal popularity; 1.2: DeepSeek-R1's")
        ->group(kLoads);
    AddNumber(app, "--tokens", num_tokens_, "Drawn for a plan, and as many to judge it", 1,
              int64_t{1} << 24)
        ->group(kLoads);
    AddNumber(app, "--seed", seed_, "")->group(kLoads);
    AddChoice(app, "--format", format_, {"text", "json"}, "Of the table");
  }

  Status Check() override {
    if (top_k_ > num_experts_) {
      return MakeError(ErrorCode::kInvalidArgument, "--top-k is {}, expected at most --experts {}",
                       top_k_, num_experts_);
    }
    if (sigma_ >= 0 && sigma_ <= 10) return {};
    return MakeError(ErrorCode::kInvalidArgument, "--sigma is {}, expected 0 to 10", sigma_);
  }

  Result<int> Run(Interrupt&) override {
    MOEBIUS_ASSIGN(const moe::SlotShape shape, MakeShape(shape_, num_experts_, nullptr));
    const std::vector<double> popularity =
        moe::SyntheticLoads(num_layers_, num_experts_, sigma_, seed_).Popularity();
    moe::Locality means[std::size(kRules)];
    for (int layer = 0; layer < num_layers_; ++layer) {
      const auto load = std::span(popularity)
                            .subspan(static_cast<size_t>(layer) * static_cast<size_t>(num_experts_),
                                     static_cast<size_t>(num_experts_));
      MOEBIUS_TRY(AddLayer(shape, load, seed_ + 2 * static_cast<uint64_t>(layer), means));
    }
    Print(shape, means);
    return kExitOk;
  }

 private:
  // Planned from the first tokens, judged on the others.
  Status AddLayer(const moe::SlotShape& shape, std::span<const double> load, uint64_t seed,
                  std::span<moe::Locality> means) const {
    const std::vector<double> past =
        moe::CountChoices(moe::DrawTopK(load, num_tokens_, top_k_, seed), num_experts_);
    MOEBIUS_ASSIGN(const moe::SlotList experts,
                   moe::PlanLayer(moe::BalancePolicy::kImprove, shape, past, {}));
    const std::vector<int32_t> choices = moe::DrawTopK(load, num_tokens_, top_k_, seed + 1);
    for (size_t i = 0; i < std::size(kRules); ++i) {
      MOEBIUS_ASSIGN(const moe::Locality layer,
                     moe::MeasureLocality(shape, experts, choices, top_k_, kRules[i].rule));
      means[i].distinct_ranks += layer.distinct_ranks / num_layers_;
      means[i].remote_copies += layer.remote_copies / num_layers_;
      means[i].rank_imbalance += layer.rank_imbalance / num_layers_;
    }
    return {};
  }

  void Print(const moe::SlotShape& shape, std::span<const moe::Locality> means) const {
    nlohmann::ordered_json json = {{"layers", num_layers_},
                                   {"experts", num_experts_},
                                   {"slots", shape.num_slots},
                                   {"ranks", shape.num_ranks}};
    std::string text =
        fmt::format("{} layers of {} experts, {} slots on {} ranks, {} tokens of {} experts\n\n",
                    num_layers_, num_experts_, shape.num_slots, shape.num_ranks, num_tokens_,
                    top_k_) +
        fmt::format("{:<12} {:>14} {:>13} {:>9}\n", "rule", "distinct ranks", "remote copies",
                    "imbalance");
    for (size_t i = 0; i < std::size(kRules); ++i) {
      const moe::Locality& mean = means[i];
      text += fmt::format("{:<12} {:>14.3f} {:>13.3f} {:>9.4f}\n", kRules[i].name,
                          mean.distinct_ranks, mean.remote_copies, mean.rank_imbalance);
      json["rules"].push_back({{"rule", kRules[i].name},
                               {"distinct_ranks", mean.distinct_ranks},
                               {"remote_copies", mean.remote_copies},
                               {"imbalance", mean.rank_imbalance}});
    }
    fmt::print("{}", format_ == "json" ? json.dump(2) + "\n" : text);
  }

  EplbShapeFlags shape_;
  int num_layers_ = 6;
  int num_experts_ = 256;
  int top_k_ = 8;
  double sigma_ = 1.2;
  int64_t num_tokens_ = 4000;
  uint64_t seed_ = 0;
  std::string format_ = "text";
};

}  // namespace

std::unique_ptr<EplbVerb> MakeEplbLocality() { return std::make_unique<EplbLocality>(); }

}  // namespace moebius::app
