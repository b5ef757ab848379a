#include "base/result.h"

#include <gtest/gtest.h>

#include <memory>
#include <set>
#include <string>

namespace moebius {
namespace {

Result<int> Half(int number) {
  if (number % 2 != 0)
    return MakeError(ErrorCode::kInvalidArgument, "{} is odd, expected an even number", number);
  return number / 2;
}
Result<int> Quarter(int number) {
  MOEBIUS_ASSIGN(const int half, Half(number));
  int quarter = 0;
  MOEBIUS_ASSIGN(quarter, Half(half));
  return quarter;
}
Status CheckEven(int number) {
  MOEBIUS_TRY(Half(number));
  return {};
}
Result<std::unique_ptr<int>> Boxed(int number) {
  MOEBIUS_TRY(CheckEven(number));
  return std::make_unique<int>(number);
}

TEST(Result, CarriesAValueOrTheFirstError) {
  EXPECT_EQ(Quarter(12).value(), 3);
  const Result<int> odd_half = Quarter(6);
  ASSERT_FALSE(odd_half);
  EXPECT_EQ(odd_half.error().code(), ErrorCode::kInvalidArgument);
  EXPECT_EQ(odd_half.error().message(), "3 is odd, expected an even number");
  EXPECT_TRUE(CheckEven(2));
  EXPECT_FALSE(CheckEven(1));
}

TEST(Result, CarriesValuesThatOnlyMove) {
  const auto unbox = []() -> Result<int> {
    MOEBIUS_ASSIGN(const std::unique_ptr<int> box, Boxed(4));
    return *box;
  };
  EXPECT_EQ(unbox().value(), 4);
  EXPECT_FALSE(Boxed(3));
}

TEST(Result, ContextStandsBeforeTheMessage) {
  const Error error = Half(5).error().WithContext("layer 3").WithContext("model.safetensors");
  EXPECT_EQ(error.message(), "model.safetensors: layer 3: 5 is odd, expected an even number");
  EXPECT_EQ(error.code(), ErrorCode::kInvalidArgument);
}

TEST(Result, EveryCodeHasANameOfItsOwn) {
  std::set<std::string> names;
  for (int code = 0; code <= static_cast<int>(ErrorCode::kInternal); ++code) {
    names.insert(ErrorCodeName(static_cast<ErrorCode>(code)));
  }
  EXPECT_EQ(names.size(), static_cast<size_t>(ErrorCode::kInternal) + 1);
  EXPECT_EQ(names.count("unknown error"), 0u);
}

}  // namespace
}  // namespace moebius
