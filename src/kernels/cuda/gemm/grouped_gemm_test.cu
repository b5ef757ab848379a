// Every tile of both formats against float64, on ragged groups: none, one and many rows, more
// groups than a warp has lanes, permuted slots, rows before the first group, K beyond 32 blocks,
// last rows in wide tiles and in plain ones.
// Needs a Hopper GPU. Exit 0 only if all pass.
#include <cstdio>
#include <ctime>
#include <string>
#include <vector>

#include "kernels/cuda/gemm/test_support.cuh"

namespace moebius::cuda::testing {
namespace {

using tuning::GemmFormat;

struct Case {
  const char* name;
  int n;
  int k;
  int first_row;
  int spare_slots;  // with a permuted slot table, if not 0
  std::vector<int> rows;
};

std::vector<Case> Cases(uint64_t seed) {
  std::vector<int> many(75);
  for (size_t i = 0; i < many.size(); ++i) {
    many[i] = Mix(seed + i) % 3 == 0 ? 0 : Mix(seed * 7 + i) % 21;
  }
  std::vector<int> large(40);
  for (size_t i = 0; i < large.size(); ++i) {
    large[i] = Mix(seed * 3 + i) % 5 == 0 ? 0 : Mix(seed * 11 + i) % 600;
  }
  // Remainders on both sides of what a wide tile, its waves and half a plain tile hold.
  const std::vector<int> last = {257, 320, 321, 383, 384, 385, 447, 448, 511, 513, 640, 641};
  return {
      {"ragged", 256, 256, 0, 0, {0, 1, 37, 130, 64}},
      {"one row", 256, 128, 0, 0, {1}},
      {"slots permuted", 512, 1024, 5, 3, {9, 0, 0, 200, 1, 31}},
      {"odd weight tiles", 384, 896, 2, 0, {100, 3, 0, 17}},
      {"many groups", 512, 512, 0, 0, many},
      {"long k", 512, 4224, 1, 1, {300, 0, 0, 1, 257}},
      {"edges of waves", 256, 640, 0, 0, {64, 65, 127, 128, 129, 191, 192, 193, 256, 320, 321}},
      {"last rows, half a wide tile", 256, 256, 3, 0, last},
      {"last rows, one wide tile", 512, 384, 1, 2, last},
      {"last rows, a wide tile and a half", 768, 256, 2, 0, last},
      {"last rows of many groups", 768, 640, 0, 0, large},
      {"many tiles", 1024, 384, 0, 2, {1500, 700, 8}},
      {"empty", 256, 256, 4, 0, {0, 0, 0}},
  };
}

class Fixture {
 public:
  Fixture(GemmFormat format, const Case& test, uint64_t seed)
      : offsets_(Offsets(test)),
        groups_(static_cast<int>(test.rows.size())),
        slots_count_(groups_ + test.spare_slots),
        capacity_(offsets_.back() + 70),
        stride_((capacity_ + 7) / 4 * 4),
        element_(format == GemmFormat::kFp8Block ? 1 : 2),
        rows_(static_cast<size_t>(capacity_) * test.k * element_),
        weights_(static_cast<size_t>(slots_count_) * test.n * test.k * element_),
        row_scales_(static_cast<size_t>(stride_) * (test.k / 128)),
        weight_scales_(static_cast<size_t>(slots_count_) * (test.n / 128) * (test.k / 128)),
        out_(static_cast<size_t>(capacity_) * test.n),
        device_offsets_(offsets_),
        device_slots_(Slots()) {
    FillOperand(rows_.get(), format, rows_.size() / element_, seed);
    FillOperand(weights_.get(), format, weights_.size() / element_, seed + 1);
    FillScales(row_scales_.get(), row_scales_.size(), seed + 2);
    FillScales(weight_scales_.get(), weight_scales_.size(), seed + 3);
    args_ = {format,
             rows_.get(),
             row_scales_.get(),
             stride_,
             weights_.get(),
             weight_scales_.get(),
             out_.get(),
             device_offsets_.get(),
             test.spare_slots > 0 ? device_slots_.get() : nullptr,
             capacity_,
             groups_,
             slots_count_,
             test.n,
             test.k,
             next_.get()};
  }
  const GroupedGemmArgs& args() const { return args_; }
  int32_t Counted() const {
    int32_t count = 0;
    Check(cudaMemcpy(&count, next_.get(), sizeof(count), cudaMemcpyDeviceToHost), "counter");
    return count;
  }

 private:
  static std::vector<int32_t> Offsets(const Case& test) {
    std::vector<int32_t> offsets = {test.first_row};
    for (const int rows : test.rows) {
      offsets.push_back(offsets.back() + rows);
    }
    return offsets;
  }
  std::vector<int32_t> Slots() const {
    std::vector<int32_t> slots(groups_);
    for (int g = 0; g < groups_; ++g) {
      slots[g] = slots_count_ - 1 - g;
    }
    return slots;
  }

  std::vector<int32_t> offsets_;
  int groups_;
  int slots_count_;
  int64_t capacity_;
  int64_t stride_;
  int element_;
  DeviceArray<uint8_t> rows_;
  DeviceArray<uint8_t> weights_;
  DeviceArray<float> row_scales_;
  DeviceArray<float> weight_scales_;
  DeviceArray<__nv_bfloat16> out_;
  DeviceArray<int32_t> next_ = DeviceArray<int32_t>(std::vector<int32_t>{0});
  DeviceArray<int32_t> device_offsets_;
  DeviceArray<int32_t> device_slots_;
  GroupedGemmArgs args_;
};

// Whether it passed; keeps the worst error. asks: clusters ask for their tiles, or take every n-th.
bool RunTile(const Fixture& fixture, const char* name, const tuning::GroupedGemmConfig& config,
             bool asks, uint64_t seed, double* worst) {
  const GemmFormat format = fixture.args().format;
  Poison(fixture.args());
  GroupedGemmArgs args = fixture.args();
  if (!asks) args.next = nullptr;
  Check(LaunchGroupedGemm(args, config, nullptr));
  Check(cudaDeviceSynchronize(), "grouped gemm");
  const Verdict verdict = Judge(fixture.args(), INT64_MAX, seed + 9);
  *worst = verdict.error > *worst ? verdict.error : *worst;
  const int32_t counted = fixture.Counted();
  const bool passes = verdict.Passes() && counted == 0;
  if (!passes) {
    const tuning::GroupedGemmTile& t = tuning::TileAt(format, config.tile_idx);
    std::printf(
        "FAIL %s, %s, tile %d (swap %d, weights %d, tokens %d, cluster %d, wide %d, asks %d, "
        "counted %d): error "
        "%.2e, "
        "largest %.2e, unwritten %llu, trespassed %llu, not finite %llu\n",
        format == GemmFormat::kFp8Block ? "fp8" : "bf16", name, config.tile_idx, t.swap,
        t.weight_rows, t.token_rows, t.cluster, config.wide, asks, counted, verdict.error,
        verdict.largest, verdict.unwritten, verdict.trespassed, verdict.bad);
  }
  return passes;
}

// Rows' outputs, and whether all counters of parts are zero.
std::vector<uint16_t> Outputs(const GroupedGemmArgs& args, int rows) {
  std::vector<uint16_t> out(static_cast<size_t>(rows) * args.n);
  Check(cudaMemcpy(out.data(), args.out, out.size() * 2, cudaMemcpyDeviceToHost), "outputs");
  return out;
}
bool AllZero(const int32_t* counters) {
  std::vector<int32_t> values(tuning::PartCounters(132));
  Check(cudaMemcpy(values.data(), counters, values.size() * 4, cudaMemcpyDeviceToHost), "counters");
  return values == std::vector<int32_t>(values.size());
}

bool RunParts(const Fixture& fixture, const tuning::GroupedGemmConfig& config, float* partials,
              int32_t* arrivals, int rows, uint64_t seed, double* worst) {
  Poison(fixture.args());
  GroupedGemmArgs args = fixture.args();
  args.offsets = nullptr;
  args.capacity = rows;
  args.partials = partials;
  args.arrivals = arrivals;
  std::vector<uint16_t> first;
  bool same = true;
  for (int i = 0; i < 20; ++i) {
    Check(LaunchGroupedGemm(args, config, nullptr));
    Check(cudaDeviceSynchronize(), "grouped gemm");
    if (i == 0) first = Outputs(args, rows);
    same = same && Outputs(args, rows) == first;
  }
  const Verdict verdict = Judge(fixture.args(), INT64_MAX, seed + 9);
  *worst = verdict.error > *worst ? verdict.error : *worst;
  const bool zero = AllZero(arrivals) && fixture.Counted() == 0;
  if (verdict.Passes() && same && zero) return true;
  std::printf(
      "FAIL one group of %d rows, %d x %d, tile %d of %d parts: error %.2e, largest %.2e, "
      "unwritten "
      "%llu, trespassed %llu, not finite %llu, same bits %d, counters at zero %d\n",
      rows, args.n, args.k, config.tile_idx, tuning::TileAt(args.format, config.tile_idx).parts,
      verdict.error, verdict.largest, verdict.unwritten, verdict.trespassed, verdict.bad, same,
      zero);
  return false;
}

// Returns the number of failures.
int RunCase(GemmFormat format, const Case& test, uint64_t seed, double* worst) {
  const Fixture fixture(format, test, seed);
  int failures = 0;
  for (int tile = 0; tile < tuning::NumTiles(format); ++tile) {
    const tuning::GroupedGemmShape shape = {
        format, test.n, test.k, static_cast<int>(test.rows.size()), 1000, 132};
    if (!tuning::TileFits(shape, tile)) {
      continue;
    }
    tuning::GroupedGemmConfig config = tuning::ConfigOfTile(shape, tile);
    config.width = 1 + static_cast<int>((seed + tile) % 3);
    config.stream = tile % 2 == 0;
    config.wide = false;
    failures += !RunTile(fixture, test.name, config, true, seed, worst);
    if (tuning::TileAt(format, tile).cluster > 1) {
      failures += !RunTile(fixture, test.name, config, false, seed, worst);
    }
    if (tuning::HasWideForm(tuning::TileAt(format, tile))) {
      config.wide = true;
      failures += !RunTile(fixture, test.name, config, true, seed, worst);
    }
  }
  return failures;
}

// One group of all rows, its tiles in one part and in two: right, the same bits each time, counters
// left at zero.
int RunLone(GemmFormat format, int n, int k, int rows, uint64_t seed, double* worst) {
  const Case test = {"one group in parts", n, k, 0, 0, {rows}};
  const Fixture fixture(format, test, seed);
  const DeviceArray<float> partials(tuning::PartialFloats(132));
  const DeviceArray<int32_t> arrivals(std::vector<int32_t>(tuning::PartCounters(132)));
  int failures = 0;
  for (int tile = 0; tile < tuning::NumTiles(format); ++tile) {
    const tuning::GroupedGemmShape shape = {format, n, k, 1, rows, 132, true};
    if (!tuning::TileFits(shape, tile)) continue;
    tuning::GroupedGemmConfig config = tuning::ConfigOfTile(shape, tile);
    config.wide = false;
    failures += !RunParts(fixture, config, partials.get(), arrivals.get(), rows, seed, worst);
  }
  return failures;
}

int RefusesBadArguments() {
  const Case test = {"refusals", 256, 256, 0, 0, {3, 4}};
  const Fixture fixture(GemmFormat::kFp8Block, test, 1);
  const tuning::GroupedGemmConfig config =
      tuning::ChooseGroupedGemm({GemmFormat::kFp8Block, 256, 256, 2, 4, 132});
  std::vector<GroupedGemmArgs> bad(5, fixture.args());
  bad[0].n = 200;
  bad[1].k = 0;
  bad[2].weight_scales = nullptr;
  bad[3].scale_stride = bad[3].capacity - 1;
  bad[4].num_slots = 1;
  int failures = 0;
  for (const GroupedGemmArgs& args : bad) {
    failures += LaunchGroupedGemm(args, config, nullptr) == nullptr;
  }
  tuning::GroupedGemmConfig wrong = config;
  wrong.tile_idx = 1000;
  failures += LaunchGroupedGemm(fixture.args(), wrong, nullptr) == nullptr;
  if (failures > 0) {
    std::printf("FAIL %d bad argument lists were accepted\n", failures);
  }
  return failures;
}

int RunAll(uint64_t seed) {
  int failures = RefusesBadArguments();
  for (const GemmFormat format : {GemmFormat::kFp8Block, GemmFormat::kBf16}) {
    double worst = 0;
    for (const Case& test : Cases(seed)) {
      failures += RunCase(format, test, seed, &worst);
    }
    failures += RunLone(format, 512, 256, 70, seed, &worst);
    failures += RunLone(format, 7168, 2048, 256, seed, &worst);
    failures += RunLone(format, 4096, 768, 300, seed, &worst);
    failures += RunLone(format, 768, 512, 1000, seed, &worst);
    std::printf("grouped gemm %s: worst relative error %.2e\n",
                format == GemmFormat::kFp8Block ? "fp8" : "bf16", worst);
  }
  std::printf("grouped gemm: %s (seed %llu)\n", failures == 0 ? "passed" : "FAILED",
              static_cast<unsigned long long>(seed));
  return failures;
}

}  // namespace
}  // namespace moebius::cuda::testing

int main(int argc, char** argv) {
  const uint64_t seed = argc > 1 ? std::stoull(argv[1]) : std::time(nullptr) % 100000;
  return moebius::cuda::testing::RunAll(seed) == 0 ? 0 : 1;
}
