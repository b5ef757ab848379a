#include "kernels/tuning/few_rows.h"

#include <gtest/gtest.h>

namespace moebius::tuning {
namespace {

constexpr int kSms = 132;

TEST(FewRows, PayWhereTheyWereMeasuredToBeFaster) {
  EXPECT_FALSE(FewRowsPay(0, {.n = 2112, .k = 7168}));
  EXPECT_TRUE(FewRowsPay(1, {.n = 2112, .k = 7168}));
  EXPECT_TRUE(FewRowsPay(8, {.n = 2112, .k = 7168}));
  EXPECT_FALSE(FewRowsPay(9, {.n = 2112, .k = 7168}));
  // A vocabulary, and heads' short rows: one or two rows alone.
  EXPECT_TRUE(FewRowsPay(2, {.n = 129280, .k = 7168}));
  EXPECT_FALSE(FewRowsPay(3, {.n = 129280, .k = 7168}));
  EXPECT_TRUE(FewRowsPay(2, {.n = 512, .k = 128}));
  EXPECT_FALSE(FewRowsPay(4, {.n = 512, .k = 128}));
  // fp8: one row always; of more, rows times elements decide.
  EXPECT_TRUE(FewRowsPay(8, {.n = 2048, .k = 7168, .is_gated = true, .is_fp8 = true}));
  EXPECT_TRUE(FewRowsPay(4, {.n = 24576, .k = 1536, .is_fp8 = true}));
  EXPECT_FALSE(FewRowsPay(8, {.n = 24576, .k = 1536, .is_fp8 = true}));
  EXPECT_TRUE(FewRowsPay(2, {.n = 7168, .k = 16384, .is_fp8 = true}));
  EXPECT_FALSE(FewRowsPay(4, {.n = 7168, .k = 16384, .is_fp8 = true}));
  EXPECT_TRUE(FewRowsPay(1, {.n = 18432, .k = 7168, .is_gated = true, .is_fp8 = true}));
  EXPECT_FALSE(FewRowsPay(2, {.n = 18432, .k = 7168, .is_gated = true, .is_fp8 = true}));
}

TEST(FewRows, PlacesPayButWhereTheyShareSlotsOfLargeFp8Weights) {
  EXPECT_TRUE(FewPlacesPay(16, 8, {.n = 2048, .k = 7168, .is_gated = true}));
  EXPECT_FALSE(FewPlacesPay(17, 128, {.n = 768, .k = 2048, .is_gated = true}));
  EXPECT_TRUE(FewPlacesPay(16, 16, {.n = 768, .k = 2048, .is_gated = true, .is_fp8 = true}));
  EXPECT_TRUE(FewPlacesPay(8, 256, {.n = 2048, .k = 7168, .is_gated = true, .is_fp8 = true}));
  EXPECT_TRUE(FewPlacesPay(2, 64, {.n = 7168, .k = 2048, .is_fp8 = true}));
  EXPECT_FALSE(FewPlacesPay(8, 8, {.n = 2048, .k = 7168, .is_gated = true, .is_fp8 = true}));
  EXPECT_FALSE(FewPlacesPay(16, 256, {.n = 7168, .k = 2048, .is_fp8 = true}));
}

TEST(FewRows, WarpsFillTheGpuAndHaveWorkEach) {
  EXPECT_EQ(WarpsOfTile(132, 1, 14336, kSms), 16);   // 2112 rows of bf16
  EXPECT_EQ(WarpsOfTile(16, 1, 14336, kSms), 16);    // a router
  EXPECT_EQ(WarpsOfTile(128, 1, 4096, kSms), 8);     // no more pieces
  EXPECT_EQ(WarpsOfTile(1536, 1, 3072, kSms), 4);    // long rows, many tiles
  EXPECT_EQ(WarpsOfTile(8080, 1, 14336, kSms), 4);   // a vocabulary of long rows
  EXPECT_EQ(WarpsOfTile(9496, 1, 4096, kSms), 1);    // and of others
  EXPECT_EQ(WarpsOfTile(8, 128, 1024, kSms), 2);     // heads
  EXPECT_EQ(WarpsOfTile(96, 8, 4096, kSms), 2);      // experts' places
  EXPECT_EQ(WarpsOfTile(1000000, 1, 256, kSms), 1);  // short rows
}

}  // namespace
}  // namespace moebius::tuning
