#include "plan/balance/statistics_folder.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cstring>
#include <filesystem>
#include <fstream>

#include "model/safetensors.h"
#include "model/testing/checkpoint_writer.h"

namespace moebius::plan {
namespace {

using Vectors = std::map<std::string, std::vector<int64_t>>;

class StatisticsFolderTest : public testing::Test {
 protected:
  void SetUp() override {
    folder_ = testing::TempDir() + "statistics_folder_test_" +
              testing::UnitTest::GetInstance()->current_test_info()->name();
    std::filesystem::remove_all(folder_);
    std::filesystem::create_directories(folder_);
    Meta(R"({"num_experts": 3, "num_experts_per_token": 1})");
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  void Meta(const std::string& text) const { std::ofstream(folder_ + "/meta_info.json") << text; }

  // As Python's library writes a rank's counts.
  void Rank(const std::string& name, const Vectors& vectors) const {
    std::map<std::string, model::TestTensor> tensors;
    for (const auto& [key, counts] : vectors) {
      model::TestTensor tensor;
      tensor.dtype = "I64";
      tensor.shape = {static_cast<int64_t>(counts.size())};
      tensor.bytes.assign(reinterpret_cast<const char*>(counts.data()), counts.size() * 8);
      tensors[key] = tensor;
    }
    std::ofstream(folder_ + "/" + name, std::ios::binary) << model::SafetensorsBytes(tensors);
  }

  std::string ErrorOf(const ReadStatisticsOptions& options = {}) const {
    const auto statistics = ReadStatistics(folder_, options);
    EXPECT_FALSE(statistics);
    if (statistics) return "";
    std::string message = statistics.error().message();
    for (size_t at = message.find(folder_); at != std::string::npos; at = message.find(folder_)) {
      message.replace(at, folder_.size(), "DIR");
    }
    return message;
  }

  std::string folder_;
};

TEST_F(StatisticsFolderTest, SumsOverRanks) {
  Rank("rank0.safetensors",
       {{"99_3", {1, 2, 3}}, {"99_4", {4, 5, 6}}, {"100_3", {7, 8, 9}}, {"100_4", {1, 1, 1}}});
  Rank("rank10.safetensors",
       {{"99_3", {10, 20, 30}}, {"99_4", {0, 0, 0}}, {"100_3", {1, 0, 0}}, {"100_4", {0, 0, 9}}});
  Rank("rank0_raw.safetensors", {{"99_3", {2, 2, 1, 0}}});  // ids, of no interest
  const auto statistics = ReadStatistics(folder_);
  ASSERT_TRUE(statistics) << statistics.error().message();
  EXPECT_EQ(statistics->meta.num_experts, 3);
  EXPECT_EQ(statistics->meta.num_experts_per_token, 1);
  EXPECT_EQ(statistics->layers, (std::vector<int>{3, 4}));
  EXPECT_EQ(statistics->first_iteration, 99);
  ASSERT_EQ(statistics->iterations.size(), 2u);
  EXPECT_EQ(statistics->iterations[0], (LayerCounts{{11, 22, 33}, {4, 5, 6}}));
  EXPECT_EQ(statistics->iterations[1], (LayerCounts{{8, 8, 9}, {1, 1, 10}}));

  const auto second = ReadStatistics(folder_, {.iter_start = 100});
  ASSERT_TRUE(second) << second.error().message();
  EXPECT_EQ(second->iterations, (std::vector<LayerCounts>{{{8, 8, 9}, {1, 1, 10}}}));
  const auto first = ReadStatistics(folder_, {.iter_stop = 100});
  ASSERT_TRUE(first) << first.error().message();
  EXPECT_EQ(first->iterations, (std::vector<LayerCounts>{{{11, 22, 33}, {4, 5, 6}}}));
  EXPECT_EQ(ErrorOf({.iter_start = 98}),
            "DIR: iterations 98 up to 101 are asked for, expected some of 99 up to 101");
  EXPECT_EQ(ErrorOf({.iter_start = 100, .iter_stop = 100}),
            "DIR: iterations 100 up to 100 are asked for, expected some of 99 up to 101");
}

TEST_F(StatisticsFolderTest, RanksOfStagesHaveTheirOwnLayers) {
  Rank("rank0.safetensors", {{"0_0", {1, 2, 3}}});
  Rank("rank1.safetensors", {{"0_1", {4, 5, 6}}});
  const auto statistics = ReadStatistics(folder_);
  ASSERT_TRUE(statistics) << statistics.error().message();
  EXPECT_EQ(statistics->iterations, (std::vector<LayerCounts>{{{1, 2, 3}, {4, 5, 6}}}));
}

TEST_F(StatisticsFolderTest, SlotsFoldToExperts) {
  Rank("rank0.safetensors", {{"0_5", {1, 2, 4, 8}}});
  EXPECT_EQ(ErrorOf(),
            "DIR/rank0.safetensors: 0_5 has 4 counts, expected 3, one an expert; where balancing "
            "was on, slots are counted: name the placement that was in use");
  PlacementFile placement;
  placement.num_slots = 4;
  EXPECT_EQ(ErrorOf({.placement = &placement}),
            "DIR: layer 5 was counted, but the placement has none such");
  placement.assignments[5] = {0, 2, 1, 0};
  const auto statistics = ReadStatistics(folder_, {.placement = &placement});
  ASSERT_TRUE(statistics) << statistics.error().message();
  EXPECT_EQ(statistics->iterations[0], (LayerCounts{{9, 4, 2}}));
  placement.assignments[5] = {0, 3, 1, 0};
  EXPECT_EQ(ErrorOf({.placement = &placement}),
            "DIR: the placement has expert 3 in slot 1 of layer 5, expected 0 to 2");
  placement.num_slots = 5;
  EXPECT_TRUE(ErrorOf({.placement = &placement}).starts_with("DIR/rank0.safetensors: 0_5 has 4"));
}

TEST_F(StatisticsFolderTest, RoundTrip) {
  std::filesystem::remove_all(folder_);
  ExpertStatistics rank;
  rank.meta = {3, 2};
  rank.layers = {1, 7};
  rank.first_iteration = 5;
  rank.iterations = {{{1, 2, 3}, {4, 5, 6}}, {{0, 0, 7}, {0, 0, 0}}};
  ExpertStatistics other = rank;
  other.iterations[1][1] = {1, 1, 1};
  ASSERT_TRUE(MakeStatisticsFolder(folder_));
  ASSERT_TRUE(WriteStatistics(folder_, std::vector{rank, other}));
  EXPECT_EQ(MakeStatisticsFolder(folder_).error().message(),
            folder_ + " holds something, expected a new folder or an empty one");
  const auto sum = ReadStatistics(folder_);
  ASSERT_TRUE(sum) << sum.error().message();
  EXPECT_EQ(sum->meta.num_experts_per_token, 2);
  EXPECT_EQ(sum->layers, rank.layers);
  EXPECT_EQ(sum->first_iteration, 5);
  EXPECT_EQ(sum->iterations,
            (std::vector<LayerCounts>{{{2, 4, 6}, {8, 10, 12}}, {{0, 0, 14}, {1, 1, 1}}}));
  // What the vectors are called and where they begin.
  const auto file = model::SafetensorsFile::Open(folder_ + "/rank1.safetensors");
  ASSERT_TRUE(file) << file.error().message();
  EXPECT_EQ(file->tensors().size(), 4u);
  EXPECT_EQ(file->tensors()[0].name, "5_1");
  EXPECT_EQ(file->header_bytes() % 8, 0u);
}

TEST_F(StatisticsFolderTest, Holes) {
  Rank("rank0.safetensors", {{"7_1", {1, 1, 1}}, {"9_1", {1, 1, 1}}});
  EXPECT_EQ(ErrorOf(),
            "DIR: 8_1 is missing: expected each of iterations 7 to 9 to have the same 1 layers");
  Rank("rank0.safetensors", {{"7_1", {1, 1, 1}}, {"7_2", {1, 1, 1}}, {"8_2", {1, 1, 1}}});
  EXPECT_EQ(ErrorOf(),
            "DIR: 8_1 is missing: expected each of iterations 7 to 8 to have the same 2 layers");
  Rank("rank0.safetensors", {{"7_1", {1, 1, 1}}, {"7_2", {1, 1, 1}}, {"8_1", {1, 1, 1}}});
  EXPECT_EQ(ErrorOf(), "DIR: 8_2 is missing: iteration 8 has fewer layers");
  Rank("rank0.safetensors", {});
  EXPECT_EQ(ErrorOf(), "DIR: nothing was counted, expected <iteration>_<layer>");
}

TEST_F(StatisticsFolderTest, WrongVectors) {
  Rank("rank0.safetensors", {{"7", {1, 1, 1}}});
  EXPECT_EQ(ErrorOf(), "DIR/rank0.safetensors: key '7', expected <iteration>_<layer> as in 100_3");
  Rank("rank0.safetensors", {{"7_-1", {1, 1, 1}}});
  EXPECT_TRUE(ErrorOf().starts_with("DIR/rank0.safetensors: key '7_-1', expected"));
  Rank("rank0.safetensors", {{"9223372036854775807_1", {1, 1, 1}}});
  EXPECT_TRUE(ErrorOf().starts_with("DIR/rank0.safetensors: key '9223372036854775807_1'"));
  Rank("rank0.safetensors", {{"7_1", {1, -5, 1}}});
  EXPECT_EQ(ErrorOf(), "DIR/rank0.safetensors: 7_1: count 1 is -5, expected tokens");
  model::TestTensor tensor;
  tensor.dtype = "I32";
  tensor.shape = {3};
  tensor.bytes.assign(12, '\0');
  std::ofstream(folder_ + "/rank0.safetensors", std::ios::binary)
      << model::SafetensorsBytes({{"7_1", tensor}});
  EXPECT_EQ(ErrorOf(), "DIR/rank0.safetensors: 7_1 is I32 [3], expected a vector of I64");
}

TEST_F(StatisticsFolderTest, MissingFiles) {
  EXPECT_EQ(ErrorOf(), "DIR: no rank<r>.safetensors, expected one or more");
  Rank("rank0.safetensors", {{"7_1", {1, 1, 1}}});
  std::filesystem::remove(folder_ + "/meta_info.json");
  EXPECT_EQ(ErrorOf(), "DIR/meta_info.json: cannot be read, expected num_experts in it");
  EXPECT_EQ(ReadStatistics(folder_ + "/none").error().code(), ErrorCode::kNotFound);
}

TEST_F(StatisticsFolderTest, Meta) {
  const auto error = [](const std::string& text) {
    const auto meta = ParseStatisticsMeta(text, "meta");
    EXPECT_FALSE(meta) << text;
    return meta ? "" : meta.error().message();
  };
  EXPECT_EQ(error("[]"),
            "meta: no JSON object, expected {\"num_experts\": 256, \"num_experts_per_token\": 8}");
  EXPECT_EQ(error(R"({"num_expert": 3})"),
            "meta: num_experts is missing (did you mean num_expert?)");
  EXPECT_EQ(error(R"({"num_experts": -3})"), "meta: num_experts is -3, expected 1 to 1048576");
  EXPECT_EQ(error(R"({"num_experts": 4, "num_experts_per_token": 2.5})"),
            "meta: num_experts_per_token is 2.5, expected 1 to 1048576");
  EXPECT_EQ(error(R"({"num_experts": 4, "num_experts_per_token": 5})"),
            "meta: num_experts_per_token is 5, expected at most num_experts, which is 4");
  EXPECT_TRUE(ParseStatisticsMeta(R"({"num_experts": 4, "num_experts_per_token": 2, "ep_size": 2})",
                                  "meta"));
}

}  // namespace
}  // namespace moebius::plan
