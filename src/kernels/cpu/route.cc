// The router's choice and the grouping of its pairs: small, scalar but for the exponentials.
#include <algorithm>
#include <cmath>

#include "kernels/cpu/cpu_ops.h"
#include "kernels/cpu/parallel.h"

namespace moebius::kernels::cpu {
namespace {

struct RouteScratch {
  float* scores;  // [E]
  float* choice;  // [E] what the choice compares
  float* groups;  // [E] scores of groups
  int32_t* best;  // [E]
};

// The ids of the n largest values among [begin, end), best first, ties to the lowest id, inserted
// behind the `count` already in `best`; returns the new count (at most n).
int Select(const float* values, int32_t begin, int32_t end, int n, int count, int32_t* best) {
  for (int32_t i = begin; i < end; ++i) {
    if (count == n && !(values[i] > values[best[n - 1]])) continue;
    int at = count < n ? count++ : n - 1;
    for (; at > 0 && values[i] > values[best[at - 1]]; --at) best[at] = best[at - 1];
    best[at] = i;
  }
  return count;
}

float GroupValue(const float* choice, int64_t size, GroupScore score) {
  float first = choice[0];
  float second = 0;
  if (size > 1) {
    second = std::min(first, choice[1]);
    first = std::max(first, choice[1]);
  }
  for (int64_t i = 2; i < size; ++i) {
    if (choice[i] > first) {
      second = first;
      first = choice[i];
    } else {
      second = std::max(second, choice[i]);
    }
  }
  return score == GroupScore::kTop2Sum && size > 1 ? first + second : first;
}

void ComputeScores(const CpuKernels& cpu, const RouteTopKArgs& args, const float* logits,
                   float* scores) {
  const int64_t num_experts = args.logits.cols;
  if (args.score == RouterScore::kSigmoid) {
    cpu.sigmoid(logits, num_experts, scores);
  } else if (args.score == RouterScore::kSoftmax) {
    const float sum = cpu.exp_sum(logits, num_experts, cpu.max(logits, num_experts), 1.0f, scores);
    for (int64_t e = 0; e < num_experts; ++e) scores[e] /= sum;
  } else {
    std::copy_n(logits, num_experts, scores);
  }
}

void Choose(const RouteTopKArgs& args, const RouteScratch& scratch) {
  const auto num_experts = static_cast<int32_t>(args.logits.cols);
  if (args.group_score == GroupScore::kNone) {
    Select(scratch.choice, 0, num_experts, args.k, 0, scratch.best);
    return;
  }
  const int32_t size = num_experts / args.num_groups;
  for (int g = 0; g < args.num_groups; ++g) {
    scratch.groups[g] = GroupValue(scratch.choice + g * size, size, args.group_score);
  }
  int32_t* groups = scratch.best + num_experts;
  Select(scratch.groups, 0, args.num_groups, args.num_top_groups, 0, groups);
  std::sort(groups, groups + args.num_top_groups);  // so that ties still go to the lowest id
  int count = 0;
  for (int g = 0; g < args.num_top_groups; ++g) {
    count = Select(scratch.choice, groups[g] * size, (groups[g] + 1) * size, args.k, count,
                   scratch.best);
  }
}

void RouteRow(const CpuKernels& cpu, const RouteTopKArgs& args, int64_t t,
              const RouteScratch& scratch) {
  const int64_t num_experts = args.logits.cols;
  ComputeScores(cpu, args, args.logits.Row<float>(t), scratch.scores);
  for (int64_t e = 0; e < num_experts; ++e) {
    const float bias = args.bias.data == nullptr ? 0.0f : args.bias.Row<float>(0)[e];
    scratch.choice[e] = scratch.scores[e] + bias;
  }
  Choose(args, scratch);
  int32_t* experts = args.experts.data() + t * args.k;
  float* weights = args.weights.data() + t * args.k;
  float sum = args.score == RouterScore::kSigmoid ? 1e-20f : 0.0f;
  for (int j = 0; j < args.k; ++j) {
    experts[j] = scratch.best[j];
    weights[j] = scratch.scores[experts[j]];
    if (args.score == RouterScore::kSigmoidOnTop) cpu.sigmoid(&weights[j], 1, &weights[j]);
    sum += weights[j];
  }
  for (int j = 0; j < args.k; ++j) {
    if (args.normalize) weights[j] /= sum;
    weights[j] *= args.scale;
  }
}

}  // namespace

void RouteTopK(ExecContext& ctx, const RouteTopKArgs& args) {
  const CpuKernels& cpu = *ctx.backend->cpu;
  const int64_t num_experts = args.logits.cols;
  const int64_t rows = args.logits.rows;
  ArenaScope scope(*ctx.workspace);
  const int num_threads = NumThreads(ctx);
  auto* scratch =
      static_cast<RouteScratch*>(ctx.workspace->Alloc(sizeof(RouteScratch) * num_threads));
  for (int i = 0; i < num_threads; ++i) {
    scratch[i].scores = ctx.workspace->Alloc<float>(num_experts);
    scratch[i].choice = ctx.workspace->Alloc<float>(num_experts);
    scratch[i].groups = ctx.workspace->Alloc<float>(num_experts);
    scratch[i].best = ctx.workspace->Alloc<int32_t>(2 * num_experts);
  }
  const double ns_per_row = 100 + 2.0 * static_cast<double>(num_experts);
  const auto grain = static_cast<int64_t>(std::max(1.0, kTaskNs / ns_per_row));
  ForTasks(ctx, (rows + grain - 1) / grain, ns_per_row * static_cast<double>(rows),
           [&](int64_t task, int thread_idx) {
             const int64_t end = std::min(rows, (task + 1) * grain);
             for (int64_t t = task * grain; t < end; ++t) {
               RouteRow(cpu, args, t, scratch[thread_idx]);
             }
           });
}

// A counting sort; `offsets` counts, then serves as the cursors, then is put right.
void GroupBySlot(ExecContext& /*ctx*/, const GroupBySlotArgs& args) {
  int32_t* offsets = args.offsets.data();
  std::fill_n(offsets, args.num_slots + 1, 0);
  for (const int32_t slot : args.slots) {
    if (slot >= 0) ++offsets[slot + 1];
  }
  for (int64_t s = 0; s < args.num_slots; ++s) offsets[s + 1] += offsets[s];
  for (size_t p = 0; p < args.slots.size(); ++p) {
    const int32_t slot = args.slots[p];
    args.places[p] = slot < 0 ? -1 : offsets[slot]++;
    if (slot >= 0) args.pairs[args.places[p]] = static_cast<int32_t>(p);
  }
  for (int64_t s = args.num_slots; s > 0; --s) offsets[s] = offsets[s - 1];
  offsets[0] = 0;
}

}  // namespace moebius::kernels::cpu
