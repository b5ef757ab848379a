#include "model/safetensors.h"

#include <gtest/gtest.h>

#include "model/checkpoint.h"
#include "model/testing/checkpoint_writer.h"
#include "tensor/view.h"

namespace moebius::model {
namespace {

Result<SafetensorsHeader> ParseHeader(const std::string& file) {
  return ParseSafetensors(std::as_bytes(std::span(file.data(), file.size())), "w.safetensors");
}

std::string Message(const std::string& file) {
  const auto parsed = ParseHeader(file);
  return parsed ? "" : parsed.error().message();
}

#define EXPECT_HAS(text, part) EXPECT_NE((text).find(part), std::string::npos) << (text)

TEST(Safetensors, ReadsWhatIsThere) {
  const std::string bytes = SafetensorsBytes({{"a", MakeTensor({3}, {1, 2, 3}, DType::kBF16)},
                                              {"b", MakeTensor({2, 1}, {4, 5})},
                                              {"empty", MakeTensor({0, 4}, {})}});
  const auto header = ParseHeader(bytes);
  ASSERT_TRUE(header) << header.error().message();
  ASSERT_EQ(header->tensors.size(), 3u);
  size_t sum = header->header_bytes;
  for (const TensorInfo& tensor : header->tensors) sum += tensor.num_bytes;
  EXPECT_EQ(sum, bytes.size());
  const TensorInfo& b =
      header->tensors.back().name == "b" ? header->tensors.back() : header->tensors[1];
  EXPECT_EQ(b.name, "b");
  EXPECT_EQ(b.dtype, DType::kF32);
  EXPECT_EQ(b.shape, (std::vector<int64_t>{2, 1}));
  float value = 0;
  std::memcpy(&value, bytes.data() + b.offset + 4, 4);  // 6 bytes of bf16 before: unaligned
  EXPECT_EQ(value, 5.0f);
}

TEST(Safetensors, RefusesBadLengths) {
  EXPECT_HAS(Message("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"),
             "w.safetensors: a Git LFS pointer");
  EXPECT_HAS(Message("short"), "w.safetensors: 5 bytes, expected at least 8");
  EXPECT_HAS(Message(std::string("\xff\xff\xff\xff\xff\xff\xff\xff{}", 10)),
             "header of 18446744073709551615 bytes");
  const std::string good = SafetensorsBytes({{"a", MakeTensor({3}, {1, 2, 3})}});
  EXPECT_HAS(Message(good.substr(0, good.size() - 1)), "tensor 'a': data_offsets [0, 12]");
  EXPECT_HAS(Message(good.substr(0, good.size() - 1)), "truncated");
  EXPECT_HAS(Message(good.substr(0, 20)), "header of");
  EXPECT_HAS(Message(good + "x"), "belong to no tensor");
}

TEST(Safetensors, RefusesBadEntries) {
  const auto entry = [](const std::string& json, size_t data_bytes) {
    return WithLength("{" + json + "}", std::string(data_bytes, 'x'));
  };
  EXPECT_HAS(Message(entry(R"("a":{"dtype":"F32","shape":[2],"data_offsets":[0,4]})", 4)),
             "tensor 'a': 4 data bytes, expected 8 for F32 [2]");
  EXPECT_HAS(Message(entry(R"("a":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]})", 4)),
             "a size of its shape is -1");
  EXPECT_HAS(Message(entry(R"("a":{"dtype":"F32","shape":[1.5],"data_offsets":[0,4]})", 4)),
             "a size of its shape is 1.5");
  EXPECT_HAS(Message(entry(
                 R"("a":{"dtype":"F32","shape":[4611686018427387904,4],"data_offsets":[0,0]})", 0)),
             "a shape that fits in memory");
  EXPECT_HAS(Message(entry(R"("a":{"dtype":"F32","shape":[1],"data_offsets":[4,0]})", 4)),
             "data_offsets [4, 0]");
  EXPECT_HAS(Message(entry(R"("a":{"dtype":"F32","shape":[1],"data_offsets":[0]})", 4)),
             "no data_offsets");
  EXPECT_HAS(Message(entry(R"("a":{"shape":[1],"data_offsets":[0,4]})", 4)), "no dtype");
  EXPECT_HAS(Message(entry(R"("a":[1])", 4)), "its entry is no object");
  EXPECT_HAS(
      Message(entry(
          R"("a":{"dtype":"I8","shape":[3],"data_offsets":[0,3]},"b":{"dtype":"I8","shape":[3],"data_offsets":[2,5]})",
          5)),
      "tensor 'b' begins at byte");
  EXPECT_HAS(
      Message(entry(
          R"("a":{"dtype":"I8","shape":[2],"data_offsets":[0,2]},"b":{"dtype":"I8","shape":[2],"data_offsets":[3,5]})",
          5)),
      "belong to no tensor");
  EXPECT_HAS(
      Message(entry(
          R"("a":{"dtype":"I8","shape":[1],"data_offsets":[0,1]},"a":{"dtype":"I8","shape":[1],"data_offsets":[0,1]})",
          1)),
      "the key 'a' appears twice");
  EXPECT_HAS(Message(WithLength("{", "")), "not valid JSON");
  EXPECT_HAS(Message(WithLength("[]", "")), "no JSON object");
  EXPECT_HAS(Message(WithLength(std::string(100000, '['), "")), "nested 100000 levels deep");
  // A dtype that nobody knows is held, but never as a weight.
  const auto unknown =
      ParseHeader(entry(R"("a":{"dtype":"F4","shape":[3],"data_offsets":[0,2]})", 2));
  ASSERT_TRUE(unknown);
  EXPECT_FALSE(unknown->tensors[0].dtype);
}

std::string OpenMessage(const std::string& folder) {
  const auto checkpoint = Checkpoint::Open(folder);
  return checkpoint ? "" : checkpoint.error().message();
}

TEST(Checkpoint, ReadsShards) {
  const TempFolder folder;
  folder.Write("one.safetensors",
               SafetensorsBytes({{"a", MakeTensor({1}, {1})}, {"extra", MakeTensor({1}, {9})}}));
  folder.Write("two.safetensors", SafetensorsBytes({{"b", MakeTensor({1}, {2})}}));
  folder.Write("model.safetensors.index.json",
               R"({"weight_map":{"a":"one.safetensors","b":"two.safetensors"}})");
  const auto checkpoint = Checkpoint::Open(folder.path());
  ASSERT_TRUE(checkpoint) << checkpoint.error().message();
  EXPECT_EQ(checkpoint->files().size(), 2u);
  ASSERT_NE(checkpoint->Find("b"), nullptr);
  EXPECT_EQ(LoadFloat(checkpoint->Find("b")->data(), DType::kF32, 0), 2.0f);
  EXPECT_EQ(checkpoint->Find("extra"), nullptr);  // the index does not list it
  EXPECT_TRUE(checkpoint->HasPrefix("a"));
  EXPECT_FALSE(checkpoint->HasPrefix("c"));
}

TEST(Checkpoint, RefusesBadFolders) {
  const TempFolder folder;
  EXPECT_HAS(OpenMessage(folder.path()),
             "no weights, expected model.safetensors or model.safetensors.index.json");
  const auto index = [&](const std::string& text) {
    folder.Write("model.safetensors.index.json", text);
    return OpenMessage(folder.path());
  };
  EXPECT_HAS(index("{}"), "no 'weight_map'");
  EXPECT_HAS(index(R"({"weight_map":[]})"), "no 'weight_map'");
  EXPECT_HAS(index(R"({"weight_map":{"a":"../a.safetensors"}})"),
             R"(weight_map['a'] is "../a.safetensors", expected the plain name)");
  EXPECT_HAS(index(R"({"weight_map":{"a":"/etc/passwd"}})"), "expected the plain name");
  EXPECT_HAS(index(R"({"weight_map":{"a":"..."}})"), "expected the plain name");
  EXPECT_HAS(index(R"({"weight_map":{"a":7}})"), "weight_map['a'] is 7");
  EXPECT_HAS(index(R"({"weight_map":{"a":"gone.safetensors"}})"), "gone.safetensors: cannot open");
  folder.Write("one.safetensors", SafetensorsBytes({{"a", MakeTensor({1}, {1})}}));
  EXPECT_HAS(index(R"({"weight_map":{"b":"one.safetensors"}})"), "tensor 'b' is not in");
  std::filesystem::remove(folder.path() + "/model.safetensors.index.json");
  folder.Write("pytorch_model.bin", "x");
  EXPECT_HAS(OpenMessage(folder.path()), "pytorch_model.bin is not read");
}

}  // namespace
}  // namespace moebius::model
