#include "app/numbers.h"

#include <gtest/gtest.h>

#include <cmath>

namespace moebius::app {
namespace {

TEST(Numbers, WholeNumbersHaveARange) {
  EXPECT_EQ(ParseWhole<int32_t>("--n", "-7"), -7);
  EXPECT_EQ(ParseWhole<int32_t>("--n", "20", 0, 20), 20);
  EXPECT_EQ(ParseWhole<uint64_t>("--n", "18446744073709551615"), UINT64_MAX);
  for (const char* wrong : {"-1", "21", "", "x", "1.5", "7 ", "1e3", "99999999999999999999"}) {
    const auto value = ParseWhole<int32_t>("--n", wrong, 0, 20);
    ASSERT_FALSE(value) << wrong;
    EXPECT_EQ(value.error().message(),
              fmt::format("--n is '{}', expected a whole number from 0 to 20", wrong));
  }
  for (const char* wrong : {"-1", "-5", "18446744073709551616"}) {
    EXPECT_FALSE(ParseWhole<uint64_t>("--n", wrong)) << wrong;
  }
}

TEST(Numbers, RealNumbers) {
  EXPECT_EQ(ParseReal<float>("--t", "0.5"), 0.5f);
  EXPECT_EQ(ParseReal<double>("--t", "-1e-3"), -1e-3);
  EXPECT_TRUE(std::isnan(*ParseReal<float>("--t", "nan")));
  for (const char* wrong : {"", "hot", "1,5", "0.5x", "1e99"}) {
    EXPECT_FALSE(ParseReal<float>("--t", wrong)) << wrong;
  }
}

TEST(Numbers, SizesMayHaveUnits) {
  EXPECT_EQ(ParseSize("--b", "0"), 0);
  EXPECT_EQ(ParseSize("--b", "4096"), 4096);
  EXPECT_EQ(ParseSize("--b", "9007199254740993"), 9007199254740993) << "2^53 + 1";
  EXPECT_EQ(ParseSize("--b", "32k"), 32000);
  EXPECT_EQ(ParseSize("--b", "32K"), 32768);
  EXPECT_EQ(ParseSize("--b", "25.6k"), 25600);
  for (const char* four : {"4G", "4Gi", "4GB", "4GiB", "4gi"}) {
    EXPECT_EQ(ParseSize("--b", four), int64_t{4} << 30) << four;
  }
  EXPECT_EQ(ParseSize("--b", "4g"), 4000000000);
  EXPECT_EQ(ParseSize("--b", "1.5Mi"), 3 << 19);
  for (const char* wrong :
       {"", "-5", "G", "4X", "4GG", "4Gibi", "nan", "inf", "1e30", "99999999T", "4 G", "0.1"}) {
    const auto size = ParseSize("--b", wrong);
    ASSERT_FALSE(size) << wrong << ": " << *size;
    EXPECT_NE(size.error().message().find("--b is '"), std::string::npos);
  }
}

}  // namespace
}  // namespace moebius::app
