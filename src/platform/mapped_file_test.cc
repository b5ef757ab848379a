#include "platform/mapped_file.h"

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <utility>
#include <vector>

namespace moebius::platform {
namespace {

class MappedFileTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = testing::TempDir() + "mapped_file_XXXXXX";
    ASSERT_NE(mkdtemp(pattern.data()), nullptr);
    folder_ = pattern;
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  std::string Write(const std::string& name, const std::string& content) const {
    const std::string path = folder_ + "/" + name;
    std::ofstream(path, std::ios::binary) << content;
    return path;
  }

  std::string folder_;
};

std::string Content(const MappedFile& file) {
  return std::string(reinterpret_cast<const char*>(file.data()), file.size());
}

// Kilobytes of the mapping at `data` that are in this process's memory now.
int64_t ResidentKilobytes(const void* data) {
  std::ifstream smaps("/proc/self/smaps");
  char start[32];
  std::snprintf(start, sizeof(start), "%lx-", reinterpret_cast<unsigned long>(data));
  bool found = false;
  for (std::string line; std::getline(smaps, line);) {
    if (line.rfind(start, 0) == 0) found = true;
    if (found && line.rfind("Rss:", 0) == 0) return std::atoll(line.c_str() + 4);
  }
  return -1;
}

TEST_F(MappedFileTest, MapsTheBytes) {
  const std::string path = Write("a", std::string("weights\0and more", 16));
  const Result<MappedFile> file = MappedFile::Open(path);
  ASSERT_TRUE(file) << file.error().message();
  EXPECT_EQ(file->path(), path);
  EXPECT_EQ(Content(*file), std::string("weights\0and more", 16));
}

TEST_F(MappedFileTest, AnEmptyFileHasNoBytes) {
  const Result<MappedFile> file = MappedFile::Open(Write("empty", ""));
  ASSERT_TRUE(file);
  EXPECT_EQ(file->size(), 0u);
  EXPECT_EQ(file->data(), nullptr);
  file->DropPages(0, 0);
}

TEST_F(MappedFileTest, ErrorsNameTheFile) {
  const std::string missing = folder_ + "/model.safetensors";
  const Result<MappedFile> no_file = MappedFile::Open(missing);
  ASSERT_FALSE(no_file);
  EXPECT_EQ(no_file.error().code(), ErrorCode::kNotFound);
  EXPECT_NE(no_file.error().message().find(missing), std::string::npos);

  const Result<MappedFile> directory = MappedFile::Open(folder_);
  ASSERT_FALSE(directory);
  EXPECT_EQ(directory.error().code(), ErrorCode::kInvalidArgument);
  EXPECT_NE(directory.error().message().find("is a directory"), std::string::npos);

  const std::string pipe = folder_ + "/pipe";
  ASSERT_EQ(mkfifo(pipe.c_str(), 0600), 0);
  EXPECT_FALSE(MappedFile::Open(pipe));  // at once, without waiting for a writer
}

TEST_F(MappedFileTest, MovesItsMapping) {
  Result<MappedFile> first = MappedFile::Open(Write("a", "first"));
  Result<MappedFile> second = MappedFile::Open(Write("b", "second"));
  ASSERT_TRUE(first && second);
  MappedFile moved = std::move(*first);
  EXPECT_EQ(Content(moved), "first");
  moved = std::move(*second);
  EXPECT_EQ(Content(moved), "second");
}

TEST_F(MappedFileTest, DroppedPagesLeaveMemoryAndComeBackOnRead) {
  const size_t page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  const std::string content(8 * page + 100, 'w');
  const Result<MappedFile> file = MappedFile::Open(Write("big", content));
  ASSERT_TRUE(file);
  EXPECT_EQ(Content(*file), content);  // touches every page
  const int64_t page_kb = static_cast<int64_t>(page / 1024);
  const int64_t all = ResidentKilobytes(file->data());
  ASSERT_EQ(all, 9 * page_kb);

  file->DropPages(1, 3 * page);  // pages 1 and 2 lie wholly inside
  EXPECT_EQ(ResidentKilobytes(file->data()), 7 * page_kb);
  EXPECT_EQ(Content(*file), content);

  file->DropPages(0, file->size());
  EXPECT_EQ(ResidentKilobytes(file->data()), 0);
  EXPECT_EQ(Content(*file), content);
}

}  // namespace
}  // namespace moebius::platform
