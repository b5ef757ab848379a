#include "plan/measured.h"

namespace moebius::plan {
namespace {

constexpr const char* kOurs = "read on 4 x H200, NVLink, CUDA 13.0";
constexpr const char* kOursTwo = "read on 2 x H200, NVLink, CUDA 13.0";
constexpr const char* kDeepGemm = "DeepGEMM's published table, H800";
constexpr const char* kAic = "AIConfigurator's tables (power law 1.01, EPLB, 256 slots)";
constexpr const char* kOneSided = "TensorRT-LLM blog 18, one-sided all-to-all";
constexpr const char* kDeepEp = "DeepEP's published tables, H800 with ConnectX-7";
constexpr const char* kLowLatency = "AIConfigurator's tables, DeepEP low-latency, one node";

constexpr GemmRow kGemms[] = {
    {"h200", 8192, 8192, 8192, 2, 782, kOurs},      {"h200", 8192, 8192, 8192, 1, 1438, kOurs},
    {"h800", 64, 2112, 7168, 1, 206, kDeepGemm},    {"h800", 64, 24576, 1536, 1, 289, kDeepGemm},
    {"h800", 64, 32768, 512, 1, 219, kDeepGemm},    {"h800", 64, 7168, 16384, 1, 336, kDeepGemm},
    {"h800", 64, 4096, 7168, 1, 287, kDeepGemm},    {"h800", 64, 7168, 2048, 1, 295, kDeepGemm},
    {"h800", 128, 2112, 7168, 1, 352, kDeepGemm},   {"h800", 128, 24576, 1536, 1, 535, kDeepGemm},
    {"h800", 128, 32768, 512, 1, 358, kDeepGemm},   {"h800", 128, 7168, 16384, 1, 645, kDeepGemm},
    {"h800", 128, 4096, 7168, 1, 533, kDeepGemm},   {"h800", 128, 7168, 2048, 1, 510, kDeepGemm},
    {"h800", 4096, 2112, 7168, 1, 1009, kDeepGemm}, {"h800", 4096, 24576, 1536, 1, 1125, kDeepGemm},
    {"h800", 4096, 32768, 512, 1, 751, kDeepGemm},  {"h800", 4096, 7168, 16384, 1, 1426, kDeepGemm},
    {"h800", 4096, 4096, 7168, 1, 1265, kDeepGemm}, {"h800", 4096, 7168, 2048, 1, 1168, kDeepGemm},
};

constexpr double kNvfp4 = 0.5625;  // 4 bits and an fp8 scale of 16 elements

constexpr ExpertsRow kExperts[] = {
    {"gb200", 8, 16, kNvfp4, 150, kAic},   {"gb200", 8, 64, kNvfp4, 176, kAic},
    {"gb200", 8, 128, kNvfp4, 197, kAic},  {"gb200", 8, 256, kNvfp4, 245, kAic},
    {"gb200", 16, 16, kNvfp4, 101, kAic},  {"gb200", 16, 64, kNvfp4, 124, kAic},
    {"gb200", 16, 128, kNvfp4, 153, kAic}, {"gb200", 16, 256, kNvfp4, 198, kAic},
    {"gb200", 32, 16, kNvfp4, 78, kAic},   {"gb200", 32, 64, kNvfp4, 89, kAic},
    {"gb200", 32, 128, kNvfp4, 130, kAic}, {"gb200", 32, 256, kNvfp4, 172, kAic},
    {"gb200", 64, 16, kNvfp4, 64, kAic},   {"gb200", 64, 64, kNvfp4, 106, kAic},
    {"gb200", 64, 128, kNvfp4, 174, kAic}, {"gb200", 64, 256, kNvfp4, 303, kAic},
    {"h200", 8, 8, 1, 290, kAic},          {"h200", 8, 16, 1, 327, kAic},
    {"h200", 8, 64, 1, 452, kAic},         {"h200", 8, 128, 1, 541, kAic},
    {"h200", 8, 256, 1, 634, kAic},
};

// DeepGEMM (June 2026) with its scale transposition and launch, and torch 2.11's bf16 kernel.
constexpr GroupedGemmRow kGroupedGemms[] = {
    {"h200", 32, 20, 6144, 7168, 1, 378, kOurs},    {"h200", 32, 20, 7168, 3072, 1, 208, kOurs},
    {"h200", 32, 20, 4096, 4096, 1, 159, kOurs},    {"h200", 32, 20, 4096, 2048, 1, 89, kOurs},
    {"h200", 6, 20, 6144, 7168, 1, 84, kOurs},      {"h200", 6, 20, 7168, 3072, 1, 50, kOurs},
    {"h200", 6, 20, 4096, 4096, 1, 43, kOurs},      {"h200", 6, 20, 4096, 2048, 1, 27, kOurs},
    {"h200", 32, 192, 6144, 7168, 1, 559, kOurs},   {"h200", 32, 192, 7168, 3072, 1, 304, kOurs},
    {"h200", 32, 192, 4096, 4096, 1, 235, kOurs},   {"h200", 32, 192, 4096, 2048, 1, 134, kOurs},
    {"h200", 6, 1024, 6144, 7168, 1, 439, kOurs},   {"h200", 6, 1024, 7168, 3072, 1, 210, kOurs},
    {"h200", 6, 1024, 4096, 4096, 1, 172, kOurs},   {"h200", 6, 1024, 4096, 2048, 1, 91, kOurs},
    {"h200", 4, 8192, 6144, 7168, 1, 1985, kOurs},  {"h200", 4, 8192, 7168, 3072, 1, 1060, kOurs},
    {"h200", 4, 8192, 4096, 4096, 1, 786, kOurs},   {"h200", 4, 8192, 4096, 2048, 1, 411, kOurs},
    {"h200", 32, 1, 4096, 7168, 2, 654, kOurs},     {"h200", 32, 16, 4096, 7168, 2, 626, kOurs},
    {"h200", 32, 64, 4096, 7168, 2, 606, kOurs},    {"h200", 32, 256, 4096, 7168, 2, 692, kOurs},
    {"h200", 32, 1024, 4096, 7168, 2, 2572, kOurs},
};

constexpr double kFp8 = 1 + 4.0 / 128;  // an element and its share of a block's scale

// DeepEP's normal kernels are published as bandwidths: times here are those of 4096 tokens, fp8 out
// and bf16 back, at the ranks (one node) or nodes (several; V3's gate visits at most 4) that a
// token reaches: 5.25 ranks; 1.97, 3.14 and 4 nodes.
constexpr ExchangeRow kExchanges[] = {
    {"gb200", 8, 72, 1, false, 2, 18.9, 31.0, kOneSided},
    {"gb200", 8, 72, 32, false, 2, 18.2, 32.7, kOneSided},
    {"gb200", 8, 72, 64, false, 2, 22.3, 34.1, kOneSided},
    {"gb200", 8, 72, 128, false, 2, 31.7, 38.1, kOneSided},
    {"gb200", 8, 72, 256, false, 2, 50.8, 53.0, kOneSided},
    {"gb200", 8, 72, 512, false, 2, 89.5, 91.7, kOneSided},
    {"gb200", 8, 72, 1024, false, 2, 166.3, 175.6, kOneSided},
    {"gb200", 8, 72, 2048, false, 2, 311.8, 322.6, kOneSided},
    {"gb200", 16, 72, 1, false, 2, 18.8, 30.8, kOneSided},
    {"gb200", 16, 72, 32, false, 2, 20.2, 34.2, kOneSided},
    {"gb200", 16, 72, 64, false, 2, 24.1, 35.6, kOneSided},
    {"gb200", 16, 72, 128, false, 2, 34.6, 39.9, kOneSided},
    {"gb200", 16, 72, 256, false, 2, 54.8, 57.0, kOneSided},
    {"gb200", 16, 72, 512, false, 2, 97.1, 98.2, kOneSided},
    {"gb200", 16, 72, 1024, false, 2, 181.2, 188.2, kOneSided},
    {"gb200", 16, 72, 2048, false, 2, 343.3, 348.4, kOneSided},
    {"gb200", 32, 72, 1, false, 2, 19.8, 31.4, kOneSided},
    {"gb200", 32, 72, 32, false, 2, 21.1, 34.6, kOneSided},
    {"gb200", 32, 72, 64, false, 2, 26.2, 36.4, kOneSided},
    {"gb200", 32, 72, 128, false, 2, 37.8, 41.1, kOneSided},
    {"gb200", 32, 72, 256, false, 2, 61.5, 59.7, kOneSided},
    {"gb200", 32, 72, 512, false, 2, 109.6, 102.5, kOneSided},
    {"gb200", 32, 72, 1024, false, 2, 197.5, 197.5, kOneSided},
    {"gb200", 32, 72, 2048, false, 2, 373.7, 369.5, kOneSided},
    {"gb200", 64, 72, 1, false, 2, 27.8, 32.6, kOneSided},
    {"gb200", 64, 72, 32, false, 2, 23.1, 36.1, kOneSided},
    {"gb200", 64, 72, 64, false, 2, 28.8, 37.7, kOneSided},
    {"gb200", 64, 72, 128, false, 2, 41.6, 44.5, kOneSided},
    {"gb200", 64, 72, 256, false, 2, 65.3, 62.9, kOneSided},
    {"gb200", 64, 72, 512, false, 2, 115.7, 106.7, kOneSided},
    {"gb200", 64, 72, 1024, false, 2, 209.4, 199.2, kOneSided},
    {"gb200", 64, 72, 2048, false, 2, 399.2, 372.1, kOneSided},
    {"h200", 8, 8, 1, false, kFp8, 12, 13, kLowLatency},
    {"h200", 8, 8, 16, false, kFp8, 14, 18, kLowLatency},
    {"h200", 8, 8, 64, false, kFp8, 23, 39, kLowLatency},
    {"h200", 8, 8, 128, false, kFp8, 35, 68, kLowLatency},
    {"h200", 8, 8, 256, false, kFp8, 61, 125, kLowLatency},
    {"h200", 8, 8, 1024, false, kFp8, 211, 481, kLowLatency},
    {"h200", 4, 8, 128, false, kFp8, 34.5, 56.5, kOurs},
    {"h200", 2, 8, 8, false, kFp8, 15.4, 13.8, kOursTwo},
    {"h200", 2, 8, 32, false, kFp8, 17.9, 17.4, kOursTwo},
    {"h200", 2, 8, 128, false, kFp8, 31.1, 40.3, kOursTwo},
    {"h800", 8, 8, 128, false, kFp8, 77, 114, kDeepEp},
    {"h800", 16, 8, 128, false, kFp8, 118, 195, kDeepEp},
    {"h800", 32, 8, 128, false, kFp8, 155, 273, kDeepEp},
    {"h800", 64, 8, 128, false, kFp8, 173, 314, kDeepEp},
    {"h800", 128, 8, 128, false, kFp8, 192, 369, kDeepEp},
    {"h800", 256, 8, 128, false, kFp8, 194, 360, kDeepEp},
    {"h200", 4, 8, 4096, true, kFp8, 428, 600, kOurs},
    {"h200", 4, 8, 4096, true, 2, 811, 600, kOurs},
    {"h200", 2, 8, 4096, true, kFp8, 245, 406, kOursTwo},
    {"h200", 2, 8, 4096, true, 2, 344, 406, kOursTwo},
    {"h800", 8, 8, 4096, true, kFp8, 1039, 1951, kDeepEp},
    {"h800", 16, 8, 4096, true, kFp8, 1387, 2690, kDeepEp},
    {"h800", 32, 8, 4096, true, kFp8, 1639, 3235, kDeepEp},
    {"h800", 64, 8, 4096, true, kFp8, 2375, 4606, kDeepEp},
};

constexpr double kRow = 7168 * 2;  // a bf16 row of hidden 7168
constexpr double kMiB = 1024.0 * 1024.0;

// NCCL 2.28: two ranks in graph replay, four ranks by eager calls.
constexpr AllReduceRow kAllReduces[] = {
    {"h200", 2, 1 * kRow, 11.4, kOursTwo},   {"h200", 2, 8 * kRow, 10.5, kOursTwo},
    {"h200", 2, 32 * kRow, 13.0, kOursTwo},  {"h200", 2, 128 * kRow, 29.2, kOursTwo},
    {"h200", 2, 512 * kRow, 44.2, kOursTwo}, {"h200", 2, 2048 * kRow, 126.5, kOursTwo},
    {"h200", 4, 16 * kMiB, 107, kOurs},      {"h200", 4, 256 * kMiB, 1185, kOurs},
    {"h200", 4, 1024 * kMiB, 4574, kOurs},
};

}  // namespace

std::span<const GemmRow> MeasuredGemms() { return kGemms; }
std::span<const ExpertsRow> MeasuredExperts() { return kExperts; }
std::span<const GroupedGemmRow> MeasuredGroupedGemms() { return kGroupedGemms; }
std::span<const ExchangeRow> MeasuredExchanges() { return kExchanges; }
std::span<const AllReduceRow> MeasuredAllReduces() { return kAllReduces; }

}  // namespace moebius::plan
