// moebius eplb plan: a placement for each layer of recorded loads, as TensorRT-LLM's YAML or JSON.
#include <CLI/CLI.hpp>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <numeric>
#include <optional>

#include "app/commands.h"
#include "app/eplb.h"
#include "app/eplb_cost.h"
#include "app/eplb_input.h"
#include "app/flag_kinds.h"
#include "app/output_file.h"

namespace moebius::app {
namespace {

class EplbPlan : public EplbVerb {
 public:
  void AddFlags(CLI::App* app) override {
    AddInputFlags(app, input_);
    AddShapeFlags(app, shape_);
    constexpr const char* kPlan = "Plan";
    AddChoice(app, "--policy", policy_, {"deepseek", "trtllm", "improve"},
              "improve: the fewest moves from --from that pay; the others start from nothing")
        ->group(kPlan);
    AddText(app, "--from", from_, "improve: the present placement (YAML)")->group(kPlan);
    AddNumber(app, "--good-enough", improve_.good_enough,
              "improve: stop at this imbalance (max / mean - 1 by rank)")
        ->group(kPlan);
    AddNumber(app, "--min-gain", improve_.min_gain,
              "improve: change nothing that takes less than this from the imbalance (with a cost: "
              "of predicted time)")
        ->group(kPlan);
    AddNumber(app, "--max-moves", max_moves_,
              "improve: slots of a layer that may get another expert (default: any number)", 0)
        ->group(kPlan);
    AddCostFlags(app, cost_flags_);
    constexpr const char* kOutput = "Output";
    AddChoice(app, "--format", format_, {"yaml", "json"}, "yaml: TensorRT-LLM's configuration")
        ->group(kOutput);
    AddText(app, "--output-path,--output", output_, "File (default: standard output)")
        ->group(kOutput);
    AddNumber(app, "--layer-updates-per-iter", layer_updates_per_iter_,
              "yaml: layers that a step may change while serving (default: --from's, or 0: none)",
              0)
        ->group(kOutput);
  }

  Status Check() override {
    if (!from_.empty() && policy_ != "improve") {
      return MakeError(ErrorCode::kInvalidArgument,
                       "--from is of --policy improve: {} starts from nothing", policy_);
    }
    MOEBIUS_TRY(CheckCost(cost_flags_));
    if (cost_flags_.is_given() && policy_ != "improve") {
      return MakeError(ErrorCode::kInvalidArgument,
                       "--us-per-row and --us-per-active-expert are of --policy improve: {} knows "
                       "no time",
                       policy_);
    }
    return CheckInput(input_);
  }

  Result<int> Run(Interrupt&) override {
    std::optional<OutputFile> file;
    if (!output_.empty()) {
      MOEBIUS_ASSIGN(file, OutputFile::Open("--output", output_));
    }
    MOEBIUS_ASSIGN(const EplbLoads loads, ReadLoads(input_));
    if (max_moves_) improve_.max_moves = *max_moves_;
    if (cost_flags_.is_given()) {
      cost_ = cost_flags_.Cost();
      improve_.cost = &cost_;
    }
    MOEBIUS_TRY(Plan(loads));
    const std::string text = format_ == "yaml" ? plan::PlacementYaml(placement_) : Json();
    std::fputs(text.c_str(), file ? file->Begin() : stdout);
    if (file) MOEBIUS_TRY(file->Finish());
    return kExitOk;
  }

 private:
  Status Plan(const EplbLoads& loads) {
    plan::PlacementFile from;
    if (!from_.empty()) {
      MOEBIUS_ASSIGN(from, plan::ReadPlacementFile(from_, loads.trace.num_experts));
    }
    MOEBIUS_ASSIGN(const moe::SlotShape shape,
                   MakeShape(shape_, loads.trace.num_experts, from_.empty() ? nullptr : &from));
    MOEBIUS_ASSIGN(const moe::BalancePolicy policy, moe::ParsePolicy(policy_));
    placement_ = from;  // layers without loads stay as they are
    placement_.num_slots = shape.num_slots;
    placement_.layer_updates_per_iter =
        layer_updates_per_iter_.value_or(from.layer_updates_per_iter);
    layers_ = loads.layers;
    for (int layer = 0; layer < loads.trace.num_layers; ++layer) {
      const int index = loads.layers[static_cast<size_t>(layer)];
      moe::SlotList present;
      if (!from_.empty()) {
        MOEBIUS_ASSIGN(present, PlacesOfLayer(from, from_, shape, index));
      }
      const std::vector<double> load = loads.Sum(layer);
      improve_.tokens = cost_flags_.tokens_per_step;
      if (improve_.tokens == 0) {
        improve_.tokens = std::accumulate(load.begin(), load.end(), 0.0) /
                          static_cast<double>(loads.trace.windows.size());
      }
      MOEBIUS_ASSIGN(const moe::SlotList places,
                     moe::PlanLayer(policy, shape, load, present, improve_));
      imbalance_.push_back(moe::Imbalance(moe::RankLoads(shape.num_ranks, load, places)));
      placement_.assignments[index] = SlotsOf(shape, places);
    }
    return {};
  }

  std::string Json() const {
    nlohmann::ordered_json json;
    for (const int layer : layers_) json["slots"].push_back(placement_.assignments.at(layer));
    json["imbalance"] = imbalance_;
    return json.dump() + "\n";
  }

  EplbInput input_;
  EplbShapeFlags shape_;
  std::string policy_ = "improve";
  std::string from_;
  EplbCostFlags cost_flags_;
  moe::ExpertCost cost_;
  moe::ImproveOptions improve_;
  std::optional<int> max_moves_;
  std::string format_ = "yaml";
  std::string output_;
  std::optional<int> layer_updates_per_iter_;

  plan::PlacementFile placement_;
  std::vector<int> layers_;        // that were planned
  std::vector<double> imbalance_;  // of each of them
};

}  // namespace

std::unique_ptr<EplbVerb> MakeEplbPlan() { return std::make_unique<EplbPlan>(); }

}  // namespace moebius::app
