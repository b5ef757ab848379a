// Which of two layouts led, and what was left for KV.
#include "plan/published.h"

namespace moebius::plan {
namespace {

constexpr const char* kPlaybook = "AMD's playbook, vLLM";
constexpr const char* kIssue = "vLLM issue 28887, H200";
constexpr const char* kGb300 = "vLLM, GB300";
constexpr const char* kVllmBlog = "vLLM blog, H200, DeepSeek-V3";

// Packed by hand, like published_rows.cc.
// clang-format off
constexpr PublishedRow kOrderingRows[] = {
    {.source = kPlaybook, .device = "mi300x", .compared = Compared::kOutputGain, .figure = 1.52,
     .kind = FigureKind::kOrdering, .tp = 8, .isl = 8000, .osl = 1000, .batch = 64, .eplb = false,
     .note = "lengths assumed; TTFT and output as it gives them for TP against DP",
     .other = {1, 8, true}},
    {.source = kPlaybook, .device = "mi300x", .compared = Compared::kTtftGain, .figure = 0.2,
     .kind = FigureKind::kOrdering, .tp = 8, .isl = 8000, .osl = 1000, .batch = 64, .eplb = false,
     .note = "the same run", .other = {1, 8, true}},
    {.source = kPlaybook, .device = "mi300x", .compared = Compared::kOutputGain, .figure = 1.47,
     .kind = FigureKind::kOrdering, .dp = 8, .isl = 8000, .osl = 1000, .batch = 1024, .eplb = false,
     .note = "the DP side; lengths assumed", .other = {8, 1, true}},
    {.source = kIssue, .device = "h200", .compared = Compared::kTtftGain, .figure = 642.0 / 546,
     .kind = FigureKind::kOrdering, .tp = 8, .isl = 1600, .osl = 600, .batch = 8, .eplb = false,
     .note = "mean TTFT 642 against 546 ms", .other = {8, 1, false}},
    {.source = kIssue, .device = "h200", .compared = Compared::kTtftGain, .figure = 823.0 / 684,
     .kind = FigureKind::kOrdering, .tp = 8, .isl = 1600, .osl = 600, .batch = 16, .eplb = false,
     .note = "mean TTFT 823 against 684 ms", .other = {8, 1, false}},
    {.source = kIssue, .device = "h200", .compared = Compared::kTtftGain,
     .kind = FigureKind::kOrdering, .tp = 8, .isl = 1600, .osl = 600, .batch = 64, .eplb = false,
     .note = "worse at higher concurrency, too: no figure, concurrency assumed",
     .other = {8, 1, false}, .above = true},
    {.source = kIssue, .device = "h200", .compared = Compared::kOutputGain,
     .kind = FigureKind::kOrdering, .tp = 8, .isl = 1600, .osl = 600, .batch = 16, .eplb = false,
     .note = "slower at every concurrency tried: no figure", .other = {8, 1, false}},
    {.source = kIssue, .device = "h200", .compared = Compared::kOutputGain,
     .kind = FigureKind::kOrdering, .tp = 8, .isl = 1600, .osl = 600, .batch = 64, .eplb = false,
     .note = "slower at every concurrency tried: no figure, concurrency assumed",
     .other = {8, 1, false}},
    {.source = kGb300, .device = "gb300", .compared = Compared::kPrefillGain, .figure = 1.125,
     .kind = FigureKind::kOrdering, .dp = 2, .isl = 2000, .osl = 1, .batch = 256, .eplb = false,
     .weights = WeightKind::kFp4, .note = "1.10 to 1.15; prefill alone", .other = {2, 1, false}},
    {.source = kGb300, .device = "gb300", .compared = Compared::kOutputGain, .figure = 1 / 1.125,
     .kind = FigureKind::kOrdering, .dp = 2, .isl = 2000, .osl = 64, .batch = 256, .eplb = false,
     .weights = WeightKind::kFp4, .note = "TP2 leads by 5 to 20 %; load assumed",
     .other = {2, 1, false}},
    {.source = "vLLM, GLM-5.2 on B300", .device = "gb300", .compared = Compared::kOutputGain,
     .kind = FigureKind::kOrdering, .tp = 2, .isl = 2000, .osl = 1000, .batch = 16, .eplb = false,
     .weights = WeightKind::kFp4,
     .note = "slower: no figure; R1 and GB300 stand in for model and device, load assumed",
     .other = {2, 1, false}},
    {.source = kVllmBlog, .device = "h200", .model = "deepseek-ai/DeepSeek-V3",
     .compared = Compared::kFreeKv, .figure = 34, .kind = FigureKind::kMemory, .tp = 8,
     .ep = false, .isl = 2000, .osl = 2000, .batch = 8},
    {.source = kVllmBlog, .device = "h200", .model = "deepseek-ai/DeepSeek-V3",
     .compared = Compared::kFreeKv, .figure = 10, .kind = FigureKind::kMemory, .dp = 8,
     .isl = 2000, .osl = 2000, .batch = 8, .note = "about 10; 82 GB of a node"},
    {.source = kVllmBlog, .device = "h200", .model = "deepseek-ai/DeepSeek-V3",
     .compared = Compared::kFreeKv, .figure = 45, .kind = FigureKind::kMemory, .dp = 16,
     .isl = 2000, .osl = 2000, .batch = 16, .note = "about 45; 358 GB of a node"},
};
// clang-format on

}  // namespace

std::span<const PublishedRow> PublishedOrderings() { return kOrderingRows; }

}  // namespace moebius::plan
