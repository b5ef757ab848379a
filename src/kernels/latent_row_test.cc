#include "kernels/latent_row.h"

#include <gtest/gtest.h>

#include "kernels/test_util.h"

namespace moebius::kernels {
namespace {

TEST(LatentRow, DeepSeeksTakes656Bytes) {
  constexpr LatentRow kRow = {512, 64};
  EXPECT_EQ(kRow.num_blocks(), 4);
  EXPECT_EQ(kRow.scales_at(), 512);
  EXPECT_EQ(kRow.rope_at(), 528);
  EXPECT_EQ(kRow.bytes(), 656);
  EXPECT_EQ((LatentRow{42, 10}.bytes()), 80);  // 42, to 44, 4 and 20 bytes, to a multiple of 16
}

// Each number within half a step of e4m3 at its block's scale, whatever the block's size.
TEST(LatentRow, KeepsEachBlockAtItsOwnScale) {
  for (const auto& [latent, rope] : {std::pair<int64_t, int64_t>{512, 64}, {200, 16}, {40, 8}}) {
    const LatentRow layout = {latent, rope};
    Random random(latent);
    std::vector<float> x;
    for (int64_t c = 0; c < latent + rope; ++c) {
      x.push_back(random.Normal(c / LatentRow::kBlock == 1 ? 1e-6f : 100.0f));
    }
    std::vector<std::byte> row(static_cast<size_t>(layout.bytes()));
    std::vector<float> back(x.size(), NAN);
    StoreLatentRow(layout, x.data(), DType::kF32, row.data());
    LoadLatentRow(layout, row.data(), back.data());
    for (int64_t begin = 0; begin < latent; begin += LatentRow::kBlock) {
      const int64_t end = std::min(latent, begin + LatentRow::kBlock);
      float largest = 0;
      for (int64_t c = begin; c < end; ++c) largest = std::max(largest, std::fabs(x[c]));
      for (int64_t c = begin; c < end; ++c) {
        const float step = std::max(std::fabs(x[c]) / 16, largest / 448 / 1024);
        ASSERT_NEAR(back[c], x[c], step * 1.0001f) << c;
      }
    }
    for (int64_t c = latent; c < latent + rope; ++c) {
      ASSERT_EQ(back[c], ToFloat(ToBFloat16(x[c]))) << c;
    }
  }
}

TEST(LatentRow, ZerosStayZerosAndTinyNumbersFinite) {
  const LatentRow layout = {256, 2};
  std::vector<float> x(258, 0.0f);
  x[130] = 1e-44f;
  std::vector<std::byte> row(static_cast<size_t>(layout.bytes()));
  std::vector<float> back(x.size(), NAN);
  StoreLatentRow(layout, x.data(), DType::kF32, row.data());
  LoadLatentRow(layout, row.data(), back.data());
  for (size_t c = 0; c < x.size(); ++c) ASSERT_NEAR(back[c], x[c], 1e-38f);
}

}  // namespace
}  // namespace moebius::kernels
