#include "plan/playbook.h"

#include <fmt/core.h>

#include <algorithm>

namespace moebius::plan {
namespace {

constexpr int64_t kLowConcurrency = 128;
constexpr int64_t kHighConcurrency = 512;
constexpr double kLowDensity = 0.01;
constexpr double kHighDensity = 0.03;

bool IsDp(PlaybookParallel parallel) { return parallel == PlaybookParallel::kDp; }

PlaybookStep AskConcurrency(const PlaybookQuestion& question, PlaybookAnswer& answer) {
  PlaybookStep step{"How many requests at once?", fmt::format("{}", question.concurrency), ""};
  if (question.concurrency <= kLowConcurrency) {
    answer.parallel = PlaybookParallel::kTp;
    step.answer = "at most 128: tensor parallelism over the node";
  } else if (question.concurrency >= kHighConcurrency) {
    answer.parallel = PlaybookParallel::kDp;
    step.answer = "512 or more: data parallelism";
  } else {
    answer.parallel = PlaybookParallel::kTpOrDp;
    step.answer = "between 128 and 512: undecided (it puts the crossover at 256 to 512)";
  }
  return step;
}

PlaybookStep AskDensity(const PlaybookQuestion& question, PlaybookAnswer& answer) {
  const double density =
      static_cast<double>(question.top_k) / static_cast<double>(question.num_experts);
  PlaybookStep step{"How dense are the experts' activations?",
                    fmt::format("{} of {} experts a token, {:.2f} %", question.top_k,
                                question.num_experts, density * 100),
                    ""};
  if (density < kLowDensity) {
    answer.expert_parallel = PlaybookEp::kOff;
    step.answer = "below 1 %: expert parallelism off";
  } else if (density > kHighDensity) {
    answer.expert_parallel = PlaybookEp::kOn;
    step.answer = "above 3 %: expert parallelism on";
  } else {
    answer.expert_parallel = PlaybookEp::kUndecided;
    step.answer = "between 1 % and 3 %: undecided";
  }
  return step;
}

PlaybookStep AskAttention(const PlaybookQuestion& question, PlaybookAnswer& answer) {
  PlaybookStep step{"Is the attention MLA or MQA?", question.latent_attention ? "yes" : "no", ""};
  if (!question.latent_attention) {
    step.answer = "keys and values are cut by heads: no exception";
  } else if (IsDp(answer.parallel)) {
    step.answer = "under data parallelism: expert parallelism on, whatever the density";
    answer.expert_parallel = PlaybookEp::kOn;
  } else if (answer.parallel == PlaybookParallel::kTpOrDp) {
    step.answer = "expert parallelism on if data parallelism is chosen";
  } else {
    step.answer = "an exception for data parallelism only";
  }
  return step;
}

PlaybookStep AskMemory(const PlaybookQuestion& question, PlaybookAnswer& answer) {
  PlaybookStep step{"Do the weights and the cache fit?", "", ""};
  step.found = !question.weights_fit_node ? "the weights do not fit one node"
               : question.memory_tight    ? "memory is tight"
                                          : "yes";
  step.answer =
      question.weights_fit_node ? "no pipeline inside one node" : "a pipeline over the nodes";
  if (question.memory_tight) {
    step.answer += "; tight: data parallelism with expert parallelism instead";
  }
  const int tp = std::min(question.num_gpus, question.gpus_per_node);
  if (answer.parallel != PlaybookParallel::kDp && question.num_heads % tp != 0) {
    answer.parallel = answer.parallel == PlaybookParallel::kTpOrDp ? PlaybookParallel::kDp
                                                                   : PlaybookParallel::kDpOrPp;
    step.answer +=
        fmt::format("; {} heads are no multiple of {}: data or pipeline parallelism instead",
                    question.num_heads, tp);
    if (IsDp(answer.parallel) && question.latent_attention) {
      answer.expert_parallel = PlaybookEp::kOn;
    }
  }
  return step;
}

void AddConfigs(const PlaybookQuestion& question, PlaybookAnswer& answer) {
  const auto add = [&](int tp, int dp, int pp, bool data_parallel) {
    layout::ParallelConfig config;
    config.gpus_per_node = question.gpus_per_node;
    config.tensor_parallel_size = tp;
    config.data_parallel_size = dp;
    config.pipeline_parallel_size = pp;
    const bool forced = data_parallel && question.latent_attention;
    const bool off = answer.expert_parallel == PlaybookEp::kOff && !forced;
    const bool on = answer.expert_parallel == PlaybookEp::kOn || forced;
    for (const bool ep : {true, false}) {
      if ((ep && off) || (!ep && on)) continue;
      config.enable_expert_parallel = ep;
      answer.configs.push_back(config);
    }
  };
  const int nodes = (question.num_gpus + question.gpus_per_node - 1) / question.gpus_per_node;
  const int tp = question.num_gpus / nodes;
  const int stages = question.weights_fit_node ? 1 : nodes;
  switch (answer.parallel) {
    case PlaybookParallel::kTp:
      add(tp, 1, stages, false);
      break;
    case PlaybookParallel::kDp:
      add(1, question.num_gpus, 1, true);
      break;
    case PlaybookParallel::kTpOrDp:
      add(tp, 1, stages, false);
      add(1, question.num_gpus, 1, true);
      break;
    case PlaybookParallel::kDpOrPp:
      add(1, question.num_gpus, 1, true);
      add(1, 1, question.num_gpus, false);
      break;
  }
}

}  // namespace

PlaybookAnswer AskPlaybook(const PlaybookQuestion& question) {
  PlaybookAnswer answer;
  answer.steps.push_back(AskConcurrency(question, answer));
  answer.steps.push_back(AskDensity(question, answer));
  answer.steps.push_back(AskAttention(question, answer));
  answer.steps.push_back(AskMemory(question, answer));
  AddConfigs(question, answer);
  for (const layout::ParallelConfig& config : answer.configs) {
    answer.text += (answer.text.empty() ? "" : " or ") + layout::ConfigName(config);
  }
  if (question.memory_tight) {
    layout::ParallelConfig tight;
    tight.gpus_per_node = question.gpus_per_node;
    tight.data_parallel_size = question.num_gpus;
    tight.enable_expert_parallel = true;
    if (!(answer.decided() && answer.configs.front() == tight)) answer.tight = tight;
  }
  if (!answer.decided()) answer.text += ": the rules do not decide, measure";
  return answer;
}

}  // namespace moebius::plan
