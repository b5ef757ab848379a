// Without a GPU: errors are values. With one: copies, events and graphs do what they say.
#include <gtest/gtest.h>

#include <cstring>

#include "platform/cuda/device.h"
#include "platform/cuda/graph.h"
#include "platform/cuda/memory.h"
#include "platform/cuda/shareable_memory.h"
#include "platform/cuda/stream.h"

namespace moebius::platform::cuda {
namespace {

bool HasDevice() {
  const auto count = DeviceCount();
  return count.has_value() && *count > 0;
}

TEST(Cuda, ErrorsAreValues) {
  EXPECT_TRUE(ToStatus(0, "nothing").has_value());
  const Status memory = ToStatus(2, "allocating");
  ASSERT_FALSE(memory.has_value());
  EXPECT_EQ(memory.error().code(), ErrorCode::kOutOfMemory);
  EXPECT_NE(memory.error().message().find("allocating"), std::string::npos);
}

TEST(Cuda, NoDeviceIsAnError) {
  if (HasDevice()) GTEST_SKIP() << "this machine has a GPU";
  EXPECT_EQ(*DeviceCount(), 0);
  EXPECT_FALSE(SelectDevice(0).has_value());
  EXPECT_FALSE(Stream::Create().has_value());
  EXPECT_FALSE(Event::Create().has_value());
  const auto memory = DeviceMemory::Allocate(16);
  ASSERT_FALSE(memory.has_value());
  EXPECT_EQ(memory.error().code(), ErrorCode::kUnavailable);
  EXPECT_TRUE(DeviceMemory::Allocate(0).has_value());
  const auto shareable = ShareableMemory::Allocate(16);
  ASSERT_FALSE(shareable.has_value());
  EXPECT_EQ(shareable.error().code(), ErrorCode::kUnavailable);
  EXPECT_TRUE(ShareableMemory::Allocate(0).has_value());
}

TEST(Cuda, CopiesEventsAndGraphs) {
  if (!HasDevice()) GTEST_SKIP() << "no GPU";
  ASSERT_TRUE(SelectDevice(0).has_value());
  EXPECT_FALSE(SelectDevice(1000).has_value());
  Stream stream = *Stream::Create(true);
  const PinnedMemory host = *PinnedMemory::Allocate(1024);
  const DeviceMemory device = *DeviceMemory::Allocate(1024);
  const PinnedMemory back = *PinnedMemory::Allocate(1024);
  std::memset(host.data(), 7, 1024);
  const Event start = *Event::Create(true);
  const Event end = *Event::Create(true);
  const auto work = [&]() -> Status {
    MOEBIUS_TRY(CopyAsync(device.data(), host.data(), 1024, stream));
    MOEBIUS_TRY(FillAsync(device.data(), 9, 512, stream));
    return CopyAsync(back.data(), device.data(), 1024, stream);
  };
  const auto graph = Graph::Capture(stream, work);
  ASSERT_TRUE(graph.has_value());
  std::memset(back.data(), 0, 1024);
  ASSERT_TRUE(start.Record(stream).has_value());
  ASSERT_TRUE(graph->Launch(stream).has_value());
  ASSERT_TRUE(end.Record(stream).has_value());
  ASSERT_TRUE(end.Synchronize().has_value());
  EXPECT_TRUE(*end.Done());
  EXPECT_GE(*end.MillisecondsSince(start), 0.0f);
  EXPECT_EQ(static_cast<int>(back.data()[511]), 9);
  EXPECT_EQ(static_cast<int>(back.data()[512]), 7);

  // A failure inside drops the capture; the stream works on.
  const auto failed = Graph::Capture(stream, [&]() -> Status {
    MOEBIUS_TRY(work());
    return MakeError(ErrorCode::kCancelled, "on purpose");
  });
  ASSERT_FALSE(failed.has_value());
  EXPECT_EQ(failed.error().code(), ErrorCode::kCancelled);
  EXPECT_TRUE(work().has_value());
  EXPECT_TRUE(stream.Synchronize().has_value());

  const auto much = DeviceMemory::Allocate(size_t{1} << 50);
  ASSERT_FALSE(much.has_value());
  EXPECT_EQ(much.error().code(), ErrorCode::kOutOfMemory);
}

// The last of so many bytes.
int LastOf(const std::byte* data, size_t size, const Stream& stream) {
  const PinnedMemory host = *PinnedMemory::Allocate(1);
  EXPECT_TRUE(CopyAsync(host.data(), data + size - 1, 1, stream).has_value());
  EXPECT_TRUE(stream.Synchronize().has_value());
  return static_cast<int>(host.data()[0]);
}

TEST(Cuda, ShareableMemoryLivesAsLongAsItsLastMapping) {
  if (!HasDevice()) GTEST_SKIP() << "no GPU";
  ASSERT_TRUE(SelectDevice(0).has_value());
  const Stream stream = *Stream::Create();
  constexpr size_t kSize = (size_t{96} << 20) - 5;
  auto owner = ShareableMemory::Allocate(kSize);
  ASSERT_TRUE(owner.has_value()) << owner.error().message();
  const size_t size = owner->size();
  EXPECT_EQ(size, size_t{96} << 20);
  auto descriptor = owner->Export();
  ASSERT_TRUE(descriptor.has_value()) << descriptor.error().message();
  auto importer = ShareableMemory::Import(*descriptor, size);
  ASSERT_TRUE(importer.has_value()) << importer.error().message();
  EXPECT_NE(importer->data(), owner->data());
  ASSERT_TRUE(FillAsync(owner->data(), 5, size, stream).has_value());
  EXPECT_EQ(LastOf(importer->data(), size, stream), 5);

  *owner = ShareableMemory();
  *descriptor = FileDescriptor();
  EXPECT_EQ(LastOf(importer->data(), size, stream), 5);
  ASSERT_TRUE(FillAsync(importer->data(), 6, size, stream).has_value());
  EXPECT_EQ(LastOf(importer->data(), size, stream), 6);

  const auto much = ShareableMemory::Allocate(size_t{1} << 50);
  ASSERT_FALSE(much.has_value());
  EXPECT_EQ(much.error().code(), ErrorCode::kOutOfMemory) << much.error().message();
  EXPECT_NE(much.error().message().find("are free"), std::string::npos);
  EXPECT_FALSE(ShareableMemory::Import(FileDescriptor(), size).has_value());
  EXPECT_TRUE(ShareableMemory::Allocate(1).has_value());  // such errors do not stay
}

TEST(Cuda, AnotherDeviceOfTheProcessIsLetIn) {
  const auto count = DeviceCount();
  if (!count || *count < 2) GTEST_SKIP() << "no two GPUs";
  ASSERT_TRUE(SelectDevice(0).has_value());
  const auto memory = ShareableMemory::Allocate(1 << 20);
  ASSERT_TRUE(memory.has_value()) << memory.error().message();
  ASSERT_TRUE(SelectDevice(1).has_value());
  const Stream stream = *Stream::Create();
  ASSERT_TRUE(CheckLink(0).has_value());
  const Status let = LetCurrentDevice(memory->data(), memory->size());
  ASSERT_TRUE(let.has_value()) << let.error().message();
  ASSERT_TRUE(FillAsync(memory->data(), 7, memory->size(), stream).has_value());
  EXPECT_EQ(LastOf(memory->data(), memory->size(), stream), 7);
}

}  // namespace
}  // namespace moebius::platform::cuda
