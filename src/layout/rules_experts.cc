#include <array>

#include "layout/rules_table.h"

namespace moebius::layout {
namespace {

// The least count of redundant experts from the given one on that fills all ranks evenly.
int64_t EvenRedundant(const RuleInput& in) {
  const int64_t group = in.group();
  return (in.slots() + group - 1) / group * group - in.model.num_experts;
}

constexpr std::array kExperts = {
    Rule{"ep-dense-model", Severity::kError,
         [](const RuleInput& in) { return in.config.enable_expert_parallel && !in.moe(); },
         [](const RuleInput& in) {
           return fmt::format(
               "enable_expert_parallel: {} has 0 routed experts, expected more than 0",
               in.model.name.empty() ? "the model" : in.model.name);
         }},
    Rule{"ep-inactive", Severity::kWarning,
         [](const RuleInput& in) {
           return in.config.enable_expert_parallel && in.moe() && in.group() == 1;
         },
         [](const RuleInput& in) {
           return fmt::format(
               "enable_expert_parallel has no effect: EP = TP x DP is 1 in {}; expected a product "
               "above 1",
               in.pp() > 1 ? fmt::format("each of the {} pipeline stages", in.pp())
                           : std::string("this layout"));
         }},
    Rule{"ep-wider-than-experts", Severity::kError,
         [](const RuleInput& in) { return in.ep() && in.group() > in.slots(); },
         [](const RuleInput& in) {
           return fmt::format(
               "expert parallel size {} (TP x DP) is more than the {} experts{}: expected at least "
               "one a rank",
               in.group(), in.model.num_experts,
               in.config.num_redundant_experts > 0
                   ? fmt::format(" and {} redundant ones", in.config.num_redundant_experts)
                   : std::string());
         }},
    Rule{"experts-uneven", Severity::kInfo,
         [](const RuleInput& in) {
           return in.ep() && !in.config.enable_eplb && in.group() <= in.slots() &&
                  in.model.num_experts % in.group() != 0;
         },
         [](const RuleInput& in) {
           return fmt::format(
               "{} experts on {} ranks are uneven: the first {} hold {}, the others {}",
               in.model.num_experts, in.group(), in.model.num_experts % in.group(),
               in.model.num_experts / in.group() + 1, in.model.num_experts / in.group());
         }},
    Rule{"eplb-needs-ep", Severity::kError,
         [](const RuleInput& in) {
           return in.config.enable_eplb && !in.config.enable_expert_parallel;
         },
         [](const RuleInput&) {
           return std::string(
               "enable_eplb is true with enable_expert_parallel false, expected both: only whole "
               "experts can be moved");
         }},
    Rule{"eplb-needs-ranks", Severity::kError,
         [](const RuleInput& in) {
           return in.config.enable_eplb && in.config.enable_expert_parallel && in.group() <= 1;
         },
         [](const RuleInput& in) {
           return fmt::format("enable_eplb is true with TP x DP = {}, expected more than 1 rank",
                              in.group());
         }},
    Rule{"eplb-divisible", Severity::kError,
         [](const RuleInput& in) {
           // Our own ranks may have a slot more than others.
           return in.config.enable_eplb && in.ep() && !in.config.holds_own_slots() &&
                  in.config.num_redundant_experts >= 0 && in.slots() % in.group() != 0;
         },
         [](const RuleInput& in) {
           return fmt::format(
               "{} experts + num_redundant_experts {} = {} slots must be divisible by expert "
               "parallel size ({}) under enable_eplb; the next that is: num_redundant_experts {}",
               in.model.num_experts, in.config.num_redundant_experts, in.slots(), in.group(),
               EvenRedundant(in));
         }},
    Rule{
        "eplb-uneven", Severity::kInfo,
        [](const RuleInput& in) {
          return in.config.enable_eplb && in.ep() && in.config.own_slots && !in.config.own_ranks &&
                 in.slots() % in.group() != 0;
        },
        [](const RuleInput& in) {
          return fmt::format(
              "{} slots on {} ranks are uneven: the first {} hold {}, the others {}; moebius serve "
              "takes them so, vLLM num_redundant_experts {} or another that the ranks divide",
              in.slots(), in.group(), in.slots() % in.group(), in.slots() / in.group() + 1,
              in.slots() / in.group(), EvenRedundant(in));
        }},
    Rule{"redundant-needs-eplb", Severity::kError,
         [](const RuleInput& in) {
           return in.config.num_redundant_experts > 0 && !in.config.enable_eplb;
         },
         [](const RuleInput& in) {
           return fmt::format(
               "num_redundant_experts is {} with enable_eplb false, expected 0 or --enable-eplb",
               in.config.num_redundant_experts);
         }},
    Rule{"dense-dp-independent", Severity::kInfo,
         [](const RuleInput& in) { return !in.moe() && in.dp() > 1; },
         [](const RuleInput& in) {
           return fmt::format(
               "data_parallel_size {} of a dense model is {} independent copies: no collective "
               "between them, each with its own KV",
               in.dp(), in.dp());
         }},
    Rule{"dp-gathers", Severity::kInfo,
         [](const RuleInput& in) {
           return in.moe() && in.dp() > 1 && !in.config.enable_expert_parallel &&
                  !in.config.own_ranks;
         },
         [](const RuleInput& in) {
           return fmt::format(
               "data_parallel_size {} without enable_expert_parallel: each expert is cut into {} "
               "slices, tokens are all-gathered before the MoE and reduce-scattered after it",
               in.dp(), in.group());
         }},
    Rule{"own-ranks-gather", Severity::kInfo,
         [](const RuleInput& in) {
           return in.config.own_ranks && in.moe() && in.group() > 1 &&
                  !in.config.enable_expert_parallel;
         },
         [](const RuleInput& in) {
           return fmt::format(
               "without enable_expert_parallel every expert is cut by its outputs into {} slices: "
               "rows are gathered before the MoE, columns between its products and after it",
               in.group());
         }},
    Rule{"tp-ep-reduces", Severity::kInfo,
         [](const RuleInput& in) { return in.ep() && in.dp() == 1 && !in.exchanges(); },
         [](const RuleInput& in) {
           return fmt::format(
               "enable_expert_parallel with data_parallel_size 1: the {} TP ranks have all tokens "
               "already, so the MoE ends in an all-reduce and nothing is exchanged",
               in.tp());
         }},
    Rule{"token-cutting", Severity::kInfo,
         [](const RuleInput& in) { return in.exchanges() && in.tp() > 1; },
         [](const RuleInput& in) {
           return fmt::format(
               "TP{} and EP meet: each TP rank takes 1/{} of the tokens into the MoE and gathers "
               "them afterwards; shared experts are copied on every rank",
               in.dp() > 1 ? ", DP" : "", in.tp());
         }},
};

}  // namespace

std::span<const Rule> ExpertRules() { return kExperts; }

}  // namespace moebius::layout
