// moebius eplb report: how evenly recorded loads fall on experts, and on ranks under a placement.
#include <fmt/core.h>
#include <CLI/CLI.hpp>
#include <filesystem>
#include <system_error>

#include "app/commands.h"
#include "app/eplb.h"
#include "app/eplb_figures.h"
#include "app/eplb_input.h"
#include "app/flag_kinds.h"

namespace moebius::app {
namespace {

class EplbReport : public EplbVerb {
 public:
  void AddFlags(CLI::App* app) override {
    AddInputFlags(app, input_);
    AddShapeFlags(app, shape_);
    AddText(app, "--projection-eplb-config-path,--placement", placement_,
            "Placement (YAML) to judge: imbalance by rank before and with it");
    AddText(app, "--reference", reference_,
            "Loads of the same questions to compare with: a folder, or a file as --load");
    AddFlag(app, "--per-expert", "Tokens of every expert, too",
            [this](bool on) { per_expert_ = on; });
    AddChoice(app, "--format", format_, {"text", "json"}, "Of the report");
  }

  Status Check() override {
    const bool says_slots = shape_.num_slots || shape_.groups != 1 || shape_.nodes != 1;
    if (says_slots && placement_.empty() && !shape_.ranks) {
      return MakeError(ErrorCode::kInvalidArgument,
                       "--ranks is missing: without it nothing is said of slots");
    }
    return CheckInput(input_);
  }

  Result<int> Run(Interrupt&) override {
    MOEBIUS_ASSIGN(const EplbLoads loads, ReadLoads(input_));
    const int num_experts = loads.trace.num_experts;
    FigureOptions options;
    plan::PlacementFile placement;
    if (!placement_.empty()) {
      MOEBIUS_ASSIGN(placement, plan::ReadPlacementFile(placement_, num_experts));
      options.placement = &placement;
      options.placement_path = placement_;
    }
    if (shape_.ranks || options.placement != nullptr) {
      MOEBIUS_ASSIGN(options.shape, MakeShape(shape_, num_experts, options.placement));
    }
    EplbLoads reference;
    if (!reference_.empty()) {
      MOEBIUS_ASSIGN(reference, ReadLoads(ReferenceInput()));
      options.reference = &reference;
      options.reference_path = reference_;
    }
    MOEBIUS_ASSIGN(const std::vector<LayerFigures> layers, LayerFiguresOf(loads, options));
    fmt::print("{}", format_ == "json" ? FiguresJson(loads, layers, per_expert_)
                                       : FiguresText(loads, layers, per_expert_));
    return kExitOk;
  }

 private:
  EplbInput ReferenceInput() const {
    EplbInput input;
    std::error_code ignored;
    const bool is_folder = std::filesystem::is_directory(reference_, ignored);
    (is_folder ? input.statistics : input.load) = reference_;
    if (!is_folder) input.first_layer = input_.first_layer;
    return input;
  }

  EplbInput input_;
  EplbShapeFlags shape_;
  std::string placement_;
  std::string reference_;
  bool per_expert_ = false;
  std::string format_ = "text";
};

}  // namespace

std::unique_ptr<EplbVerb> MakeEplbReport() { return std::make_unique<EplbReport>(); }

}  // namespace moebius::app
