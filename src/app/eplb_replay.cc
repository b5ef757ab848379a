// moebius eplb replay: policies over recorded or made-up loads, each planned from the past and
// judged on what came next.
#include <fmt/core.h>
#include <CLI/CLI.hpp>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "app/commands.h"
#include "app/eplb.h"
#include "app/eplb_cost.h"
#include "app/eplb_input.h"
#include "app/flag_kinds.h"
#include "moe/balance/replay.h"

namespace moebius::app {
namespace {

constexpr int kMostOfATrace = 1 << 16;
// kImprove that levels predicted time instead of tokens.
constexpr const char* kTimed = "timed";

class EplbReplay : public EplbVerb {
 public:
  void AddFlags(CLI::App* app) override {
    AddInputFlags(app, input_);
    AddShapeFlags(app, shape_);
    AddSynthetic(app);
    AddPlanning(app);
    AddCostFlags(app, cost_);
    AddNumber(app, "--bytes-per-expert", options_.bytes_per_expert, "Weights that a move carries");
    AddChoice(app, "--format", format_, {"text", "json"}, "Of the table");
  }

  Status Check() override {
    const std::pair<const char*, double> least[] = {
        {"--sigma", synthetic_.sigma},
        {"--drift", synthetic_.drift},
        {"--decay", options_.decay},
        {"--bytes-per-expert", options_.bytes_per_expert}};
    for (const auto& [flag, value] : least) {
      if (value >= 0 && value < 1e18) continue;
      return MakeError(ErrorCode::kInvalidArgument, "{} is {}, expected 0 or more", flag, value);
    }
    const std::pair<const char*, double> shares[] = {{"--drift", synthetic_.drift},
                                                     {"--decay", options_.decay}};
    for (const auto& [flag, value] : shares) {
      if (value <= 1) continue;
      return MakeError(ErrorCode::kInvalidArgument, "{} is {}, expected 0 to 1", flag, value);
    }
    MOEBIUS_TRY(CheckCost(cost_));
    if (std::ranges::count(policies_, kTimed) > 0 && !cost_.is_given()) {
      return MakeError(ErrorCode::kInvalidArgument,
                       "--policies has '{}', which takes --us-per-row or --us-per-active-expert",
                       kTimed);
    }
    if (kind_.empty()) return CheckInput(input_);
    if (input_.statistics.empty() && input_.load.empty()) return {};
    return MakeError(ErrorCode::kInvalidArgument,
                     "--synthetic makes loads up: expected no recorded ones beside it");
  }

  Result<int> Run(Interrupt&) override {
    moe::LoadTrace trace;
    if (kind_.empty()) {
      MOEBIUS_ASSIGN(EplbLoads loads, ReadLoads(input_));
      trace = std::move(loads.trace);
    } else {
      MOEBIUS_ASSIGN(const moe::TraceKind kind, moe::ParseTraceKind(kind_));
      trace = moe::SyntheticTrace(kind, seed_, synthetic_);
    }
    MOEBIUS_ASSIGN(const moe::SlotShape shape, MakeShape(shape_, trace.num_experts, nullptr));
    if (max_moves_) options_.improve.max_moves = *max_moves_;
    options_.cost = cost_.Cost();
    options_.tokens = cost_.tokens_per_step;
    if (policies_.empty()) {
      policies_ = {"none", "deepseek", "trtllm", "improve"};
      if (cost_.is_given()) policies_.emplace_back(kTimed);
    }
    std::vector<moe::ReplayResult> results;
    for (const std::string& name : policies_) {
      MOEBIUS_ASSIGN(moe::ReplayResult result, ReplayOne(trace, shape, name));
      results.push_back(std::move(result));
    }
    if (format_ == "json") {
      fmt::print("{}", Json(trace, shape, results));
    } else {
      fmt::print("{} layers of {} experts, {} slots on {} ranks, {} windows\n\n{}",
                 trace.num_layers, trace.num_experts, shape.num_slots, shape.num_ranks,
                 trace.windows.size(), moe::ReplayTable(results));
    }
    return kExitOk;
  }

 private:
  void AddSynthetic(CLI::App* app) {
    constexpr const char* kSynthetic = "Made-up loads";
    AddChoice(app, "--synthetic", kind_, {"stationary", "drifting", "shifting"},
              "Instead of recorded ones: log-normal popularity that stays, drifts or is replaced")
        ->group(kSynthetic);
    const auto add = [&](const char* name, int& target, const char* help) {
      AddNumber(app, name, target, help, 1, kMostOfATrace)->group(kSynthetic);
    };
    add("--layers", synthetic_.num_layers, "MoE layers");
    add("--experts", synthetic_.num_experts, "Experts of a layer");
    add("--windows", synthetic_.num_windows, "Stretches of time");
    add("--windows-per-change", synthetic_.windows_per_change, "Between drifts and shifts");
    AddNumber(app, "--sigma", synthetic_.sigma, "Of the log-normal popularity; 1.2: DeepSeek-R1's")
        ->group(kSynthetic);
    AddNumber(app, "--drift", synthetic_.drift, "How much of the popularity is new, 0 to 1")
        ->group(kSynthetic);
    AddNumber(app, "--draws", synthetic_.draws_per_window, "Tokens x experts a token, of a window",
              1, int64_t{1} << 32)
        ->group(kSynthetic);
    AddNumber(app, "--seed", seed_, "")->group(kSynthetic);
  }

  void AddPlanning(CLI::App* app) {
    constexpr const char* kPlanning = "Planning";
    AddValue(app, "--policies",
             "By commas (default: none,deepseek,trtllm,improve, and timed where there is a cost, "
             "which is improve by predicted time)",
             [this](const std::string& text) { return SetPolicies(text); })
        ->group(kPlanning);
    AddNumber(app, "--windows-per-update", options_.windows_per_update, "Between plans", 1,
              kMostOfATrace)
        ->group(kPlanning);
    AddNumber(app, "--decay", options_.decay, "Of the past, by window")->group(kPlanning);
    AddNumber(app, "--good-enough", options_.improve.good_enough, "improve: of eplb plan")
        ->group(kPlanning);
    AddNumber(app, "--min-gain", options_.improve.min_gain, "improve: of eplb plan")
        ->group(kPlanning);
    AddNumber(app, "--max-moves", max_moves_, "improve: of eplb plan", 0)->group(kPlanning);
  }

  Result<moe::ReplayResult> ReplayOne(const moe::LoadTrace& trace, const moe::SlotShape& shape,
                                      const std::string& name) {
    options_.improve.cost = name == kTimed ? &options_.cost : nullptr;
    std::optional<moe::BalancePolicy> policy;
    if (name == kTimed) {
      policy = moe::BalancePolicy::kImprove;
    } else if (name != "none") {
      MOEBIUS_ASSIGN(policy, moe::ParsePolicy(name));
    }
    MOEBIUS_ASSIGN(moe::ReplayResult result, moe::Replay(trace, shape, policy, options_));
    result.policy = name;
    return result;
  }

  Status SetPolicies(const std::string& text) {
    policies_ = CLI::detail::split(text, ',');
    for (const std::string& name : policies_) {
      if (name == "none" || name == kTimed || moe::ParsePolicy(name)) continue;
      return MakeError(ErrorCode::kInvalidArgument,
                       "--policies has '{}', expected of none, deepseek, trtllm, improve, {}", name,
                       kTimed);
    }
    return {};
  }

  static std::string Json(const moe::LoadTrace& trace, const moe::SlotShape& shape,
                          const std::vector<moe::ReplayResult>& results) {
    nlohmann::ordered_json json = {{"layers", trace.num_layers},
                                   {"experts", trace.num_experts},
                                   {"slots", shape.num_slots},
                                   {"ranks", shape.num_ranks},
                                   {"windows", trace.windows.size()}};
    for (const moe::ReplayResult& result : results) {
      json["policies"].push_back({{"policy", result.policy},
                                  {"updates", result.num_updates},
                                  {"imbalance", result.imbalance},
                                  {"planned_imbalance", result.planned_imbalance},
                                  {"best_imbalance", result.best_imbalance},
                                  {"slots_rewritten", result.slots_rewritten},
                                  {"rewritten_share", result.rewritten_share},
                                  {"bytes", result.bytes},
                                  {"step_seconds", result.step_seconds},
                                  {"planning_seconds", result.planning_seconds}});
    }
    return json.dump(2) + "\n";
  }

  EplbInput input_;
  EplbShapeFlags shape_;
  std::string kind_;  // of made-up loads; empty: recorded ones
  moe::SyntheticTraceOptions synthetic_;
  uint64_t seed_ = 0;
  std::vector<std::string> policies_;  // empty: all
  moe::ReplayOptions options_;
  std::optional<int> max_moves_;
  EplbCostFlags cost_;
  std::string format_ = "text";
};

}  // namespace

std::unique_ptr<EplbVerb> MakeEplbReplay() { return std::make_unique<EplbReplay>(); }

}  // namespace moebius::app
