// Golden checkpoints: logits and greedy tokens that transformers computed from the same files, on
// every back end, by one prefill and token by token. tests/golden holds a few; MOEBIUS_GOLDEN_DIR
// names a folder with more.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <set>

#include "kernels/backend.h"
#include "model/load.h"
#include "model/safetensors.h"
#include "model/testing/model_driver.h"

namespace moebius::model {
namespace {

struct GoldenCase {
  std::vector<TokenId> input_ids;
  std::vector<TokenId> greedy;
  double min_margin = 0;
  int64_t last_positions = 0;
  std::vector<float> logits;      // [last_positions, vocab]
  std::vector<TokenId> mtp_next;  // inputs of the MTP layer, and what it gave
  std::vector<float> mtp_logits;
};

std::vector<float> ReadTensor(const SafetensorsFile& file, const std::string& name) {
  for (const TensorInfo& info : file.tensors()) {
    if (info.name != name) continue;
    std::vector<float> values(info.num_bytes / SizeOf(*info.dtype));
    for (size_t i = 0; i < values.size(); ++i) {
      values[i] = LoadFloat(file.Data(info), *info.dtype, static_cast<int64_t>(i));
    }
    return values;
  }
  ADD_FAILURE() << "no tensor " << name;
  return {};
}

std::vector<GoldenCase> ReadCases(const std::string& folder) {
  std::ifstream in(folder + "/golden.json");
  const nlohmann::json golden = nlohmann::json::parse(in);
  auto file = SafetensorsFile::Open(folder + "/golden.safetensors");
  EXPECT_TRUE(file) << file.error().message();
  std::vector<GoldenCase> cases;
  for (const nlohmann::json& entry : golden.at("cases")) {
    GoldenCase c;
    c.input_ids = entry.at("input_ids").get<std::vector<TokenId>>();
    c.greedy = entry.at("greedy").get<std::vector<TokenId>>();
    c.min_margin = entry.at("min_margin").get<double>();
    c.last_positions = entry.at("last_positions").get<int64_t>();
    c.logits = ReadTensor(*file, entry.at("logits").get<std::string>());
    if (entry.contains("mtp_logits")) {
      c.mtp_next = entry.at("mtp_next").get<std::vector<TokenId>>();
      c.mtp_logits = ReadTensor(*file, entry.at("mtp_logits").get<std::string>());
    }
    cases.push_back(std::move(c));
  }
  return cases;
}

// Families that are served; other folders beside them are for later.
bool IsServed(const std::string& folder) {
  const auto config = LoadModelConfig(folder);
  return config || config.error().code() != ErrorCode::kUnsupported;
}

std::vector<std::string> GoldenFolders() {
  std::vector<std::string> roots = {MOEBIUS_SOURCE_DIR "/tests/golden"};
  if (const char* more = std::getenv("MOEBIUS_GOLDEN_DIR")) roots.emplace_back(more);
  std::vector<std::string> folders;
  for (const std::string& root : roots) {
    for (const auto& entry : std::filesystem::directory_iterator(root)) {
      const std::string path = entry.path().string();
      if (std::filesystem::exists(path + "/golden.json") && IsServed(path)) {
        folders.push_back(path);
      }
    }
  }
  std::sort(folders.begin(), folders.end());
  return folders;
}

struct Param {
  std::string folder;
  const kernels::Backend* backend;
};

void PrintTo(const Param& param, std::ostream* out) {
  *out << param.folder << " on " << param.backend->name;
}

// The largest error of a row, relative to the row's spread.
double RowError(const float* row, const float* expected, int64_t vocab) {
  const auto [low, high] = std::minmax_element(expected, expected + vocab);
  double worst = 0;
  for (int64_t i = 0; i < vocab; ++i) {
    const double error = std::fabs(static_cast<double>(row[i]) - expected[i]);
    worst = std::isfinite(row[i]) ? std::max(worst, error) : INFINITY;
  }
  return worst / (static_cast<double>(*high) - *low);
}

class GoldenTest : public testing::TestWithParam<Param> {
 protected:
  static platform::ThreadPool& Pool() {
    static const std::unique_ptr<platform::ThreadPool> pool = platform::ThreadPool::Create();
    return *pool;
  }

  std::unique_ptr<Model> Load(DTypeChoice dtype, KvCacheDType kv = KvCacheDType::kAuto) {
    LoadOptions options;
    options.folder = GetParam().folder;
    options.dtype = dtype;
    options.kv_cache_dtype = kv;
    auto model = LoadModel(options, Pool());
    EXPECT_TRUE(model) << model.error().message();
    return model ? *std::move(model) : nullptr;
  }
};

// The worst error of the last rows, which are those that the golden file knows of.
double WorstError(const std::vector<float>& expected, const std::vector<float>& logits,
                  int64_t vocab) {
  double worst = 0;
  const size_t skipped = logits.size() - expected.size();
  for (size_t i = 0; i < expected.size(); i += static_cast<size_t>(vocab)) {
    worst = std::max(worst, RowError(&logits[skipped + i], &expected[i], vocab));
  }
  return worst;
}

TEST_P(GoldenTest, Float32LogitsAndGreedyTokens) {
  const std::unique_ptr<Model> model = Load(DTypeChoice::kFloat32);
  ASSERT_NE(model, nullptr);
  const int64_t vocab = model->config().vocab_size;
  ModelDriver driver(*model, *GetParam().backend, Pool());
  for (const GoldenCase& c : ReadCases(GetParam().folder)) {
    std::vector<float> hidden;
    std::vector<float> logits = driver.Run({{0, c.input_ids}}, &hidden);
    EXPECT_LT(WorstError(c.logits, logits, vocab), 1e-3) << c.input_ids.size() << " tokens";
    if (!c.mtp_logits.empty()) {
      ASSERT_EQ(model->config().num_mtp_layers, 1);
      EXPECT_LT(WorstError(c.mtp_logits, driver.RunMtp(0, c.mtp_next, hidden), vocab), 1e-3)
          << "MTP, " << c.input_ids.size() << " tokens";
    }

    // The same rows one by one: the same bits.
    for (size_t i = 0; i < c.input_ids.size(); ++i) {
      const std::vector<float> row = driver.Run({{1, {c.input_ids[i]}}});
      ASSERT_TRUE(std::equal(row.begin(), row.end(), logits.begin() + i * vocab)) << "row " << i;
    }

    std::vector<TokenId> greedy;
    while (c.min_margin >= 1e-3 && greedy.size() < c.greedy.size()) {
      const auto last = logits.end() - vocab;
      greedy.push_back(static_cast<TokenId>(std::max_element(last, logits.end()) - last));
      logits = driver.Run({{0, {greedy.back()}}});
    }
    if (c.min_margin >= 1e-3) {
      EXPECT_EQ(greedy, c.greedy);
    }
    driver.Forget(0);
    driver.Forget(1);
  }
}

// The experts that one more token of `sequence` meets, by layer.
std::vector<int64_t> ExpertsOfNext(ModelDriver& driver, Model& model, int sequence, TokenId token,
                                   std::vector<float>* logits) {
  moe::ExpertStats& stats = model.expert_stats();
  stats.Clear();
  *logits = driver.Run({{sequence, {token}}});
  std::vector<int64_t> counts;
  for (int layer = 0; layer < stats.num_layers(); ++layer) {
    counts.insert(counts.end(), stats.Layer(layer).begin(), stats.Layer(layer).end());
  }
  return counts;
}

// Rounding may tip a router that is nearly undecided, and then the row takes another path: rows are
// compared as long as every token so far met the same experts as in float32.
TEST_P(GoldenTest, BFloat16LogitsWhereRoutingAgrees) {
  const std::unique_ptr<Model> exact = Load(DTypeChoice::kFloat32);
  const std::unique_ptr<Model> model = Load(DTypeChoice::kBFloat16);
  ASSERT_TRUE(exact != nullptr && model != nullptr);
  const int64_t vocab = model->config().vocab_size;
  ModelDriver exact_driver(*exact, *GetParam().backend, Pool());
  ModelDriver driver(*model, *GetParam().backend, Pool());
  int64_t num_compared = 0;
  int64_t num_rows = 0;
  double worst = 0;
  int sequence = 0;
  for (const GoldenCase& c : ReadCases(GetParam().folder)) {
    ++sequence;
    num_rows += c.last_positions;
    const int64_t first = static_cast<int64_t>(c.input_ids.size()) - c.last_positions;
    for (size_t i = 0; i < c.input_ids.size(); ++i) {
      std::vector<float> logits;
      const auto wanted = ExpertsOfNext(exact_driver, *exact, sequence, c.input_ids[i], &logits);
      if (ExpertsOfNext(driver, *model, sequence, c.input_ids[i], &logits) != wanted) break;
      const int64_t row = static_cast<int64_t>(i) - first;
      if (row < 0) continue;
      ++num_compared;
      worst = std::max(worst, RowError(logits.data(), &c.logits[row * vocab], vocab));
    }
  }
  EXPECT_LT(worst, 3e-2) << num_compared << " of " << num_rows << " rows";
  EXPECT_GE(num_compared, 3);
  RecordProperty("rows", std::to_string(num_compared) + "/" + std::to_string(num_rows));
  std::printf("worst %.4f of the spread on %ld of %ld rows\n", worst,
              static_cast<long>(num_compared), static_cast<long>(num_rows));
}

double LogProbability(const std::vector<float>& logits, TokenId token) {
  const double top = *std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (const float x : logits) sum += std::exp(x - top);
  return logits[static_cast<size_t>(token)] - top - std::log(sum);
}

// What an fp8 cache costs beside the bfloat16 that it replaces, by the log probabilities of the
// next tokens, again where routing agrees. And a row's bits stay its own: a prompt at once, or one
// token after the other from what was stored.
TEST_P(GoldenTest, Fp8LatentsWhereRoutingAgrees) {
  const auto config = LoadModelConfig(GetParam().folder);
  if (config->attention.kind != AttentionKind::kMla) GTEST_SKIP() << "no latents";
  const std::unique_ptr<Model> exact = Load(DTypeChoice::kBFloat16);
  const std::unique_ptr<Model> model = Load(DTypeChoice::kBFloat16, KvCacheDType::kFp8);
  ASSERT_TRUE(exact != nullptr && model != nullptr);
  const auto vocab = static_cast<size_t>(config->vocab_size);
  ModelDriver exact_driver(*exact, *GetParam().backend, Pool());
  ModelDriver driver(*model, *GetParam().backend, Pool());
  std::vector<double> differences;
  double worst = 0;
  int sequence = 0;
  for (const GoldenCase& c : ReadCases(GetParam().folder)) {
    const std::vector<float> at_once = driver.Run({{++sequence, c.input_ids}});
    ++sequence;
    bool agrees = true;
    for (size_t i = 0; i < c.input_ids.size(); ++i) {
      std::vector<float> want;
      std::vector<float> got;
      const auto wanted = ExpertsOfNext(exact_driver, *exact, sequence, c.input_ids[i], &want);
      agrees = ExpertsOfNext(driver, *model, sequence, c.input_ids[i], &got) == wanted && agrees;
      ASSERT_TRUE(std::equal(got.begin(), got.end(), at_once.begin() + i * vocab)) << "row " << i;
      if (!agrees || i + 1 == c.input_ids.size()) continue;
      worst = std::max(worst, RowError(got.data(), want.data(), config->vocab_size));
      differences.push_back(std::fabs(LogProbability(got, c.input_ids[i + 1]) -
                                      LogProbability(want, c.input_ids[i + 1])));
    }
  }
  ASSERT_GE(differences.size(), 3u);
  std::sort(differences.begin(), differences.end());
  EXPECT_LT(worst, 0.1);  // 3 bits of mantissa where bfloat16 has 7
  EXPECT_LT(differences[differences.size() / 2], 0.1);
  EXPECT_GT(differences.back(), 0);
  std::printf(
      "worst %.4f of the spread; |log probability - bfloat16's| of %zu tokens: median %.1e, worst "
      "%.1e\n",
      worst, differences.size(), differences[differences.size() / 2], differences.back());
}

INSTANTIATE_TEST_SUITE_P(Folders, GoldenTest, testing::ValuesIn([] {
                           std::vector<Param> params;
                           for (const std::string& folder : GoldenFolders()) {
                             for (const kernels::Backend* backend : kernels::AvailableBackends()) {
                               params.push_back({folder, backend});
                             }
                           }
                           return params;
                         }()),
                         [](const testing::TestParamInfo<Param>& info) {
                           return std::filesystem::path(info.param.folder).filename().string() +
                                  "_" + std::string(info.param.backend->name) + "_" +
                                  std::to_string(info.index);
                         });

}  // namespace
}  // namespace moebius::model
