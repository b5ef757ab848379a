#include "comm/shared_communicator.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <utility>

#include "base/check.h"
#include "base/math.h"
#include "comm/sum.h"

namespace moebius::comm {
namespace {

constexpr size_t kLine = 64;

// An all-reduce takes a second round where it saves each member this much reading. (Between 8 ranks
// on 2 cores a round costs about 0.1 ms.)
constexpr int64_t kTwoRoundBytes = 256 << 10;

uint32_t RoundedLetters(int num_letters) {
  return std::bit_ceil(static_cast<uint32_t>(num_letters));
}

int64_t RowBytes(Mat mat) { return mat.cols * static_cast<int64_t>(SizeOf(mat.dtype)); }

void CopyRows(const std::byte* from, int64_t from_stride, std::byte* to, int64_t to_stride,
              int64_t rows, int64_t bytes) {
  for (int64_t row = 0; row < rows; ++row) {
    std::memmove(to + row * to_stride, from + row * from_stride, static_cast<size_t>(bytes));
  }
}

int64_t StrideBytes(Mat mat) { return mat.stride * static_cast<int64_t>(SizeOf(mat.dtype)); }

std::byte* BytesOf(Mat mat) { return static_cast<std::byte*>(mat.data); }

}  // namespace

struct SharedCommunicator::Member {
  Signal rounds[2];
};

struct SharedCommunicator::Mailbox {
  Signal written;
  Signal read;
};

std::vector<int64_t> SplitEvenly(int64_t count, int parts, int64_t unit) {
  const int64_t units = (count + unit - 1) / unit;
  std::vector<int64_t> bounds = {0};
  for (int part = 0; part < parts; ++part) {
    const int64_t mine = units / parts + (part < units % parts ? 1 : 0);
    bounds.push_back(std::min(count, bounds.back() + mine * unit));
  }
  return bounds;
}

// Members, mailboxes of all pairs, two buffers a member, letters of all pairs.
size_t SharedCommunicator::NumBytes(int size, size_t chunk_bytes, int num_letters) {
  const auto members = static_cast<size_t>(size);
  const size_t pairs = members * members;
  return members * sizeof(Member) + pairs * sizeof(Mailbox) +
         (2 * members + RoundedLetters(num_letters) * pairs) * RoundUp(chunk_bytes, kLine);
}

SharedCommunicator::SharedCommunicator(GroupInfo info, std::span<std::byte> memory,
                                       size_t chunk_bytes, RaiseHook hook, int num_letters)
    : watch_(std::move(info)),
      memory_(memory),
      chunk_bytes_(RoundUp(chunk_bytes, kLine)),
      hook_(std::move(hook)),
      num_letters_(RoundedLetters(num_letters)),
      sent_(watch_.info().world_ranks.size()),
      received_(watch_.info().world_ranks.size()),
      parts_(watch_.info().world_ranks.size()) {
  MOEBIUS_CHECK_GE(memory.size(), NumBytes(size(), chunk_bytes, num_letters));
  MOEBIUS_CHECK_EQ(reinterpret_cast<uintptr_t>(memory.data()) % kLine, uintptr_t{0});
}

std::byte* SharedCommunicator::BufferOf(int member) const {
  const auto members = static_cast<size_t>(size());
  const size_t begin = members * sizeof(Member) + members * members * sizeof(Mailbox);
  const size_t index = static_cast<size_t>(member) * 2 + round_ % 2;
  return memory_.data() + begin + index * chunk_bytes_;
}

SharedCommunicator::Mailbox& SharedCommunicator::MailboxOf(int from, int to) const {
  const auto members = static_cast<size_t>(size());
  std::byte* const begin = memory_.data() + members * sizeof(Member);
  const size_t index = static_cast<size_t>(from) * members + static_cast<size_t>(to);
  return reinterpret_cast<Mailbox*>(begin)[index];
}

std::byte* SharedCommunicator::LetterOf(int from, int to, uint32_t sequence) const {
  const auto members = static_cast<size_t>(size());
  const size_t begin =
      members * sizeof(Member) + members * members * sizeof(Mailbox) + 2 * members * chunk_bytes_;
  const size_t pair = static_cast<size_t>(from) * members + static_cast<size_t>(to);
  return memory_.data() + begin + (pair * num_letters_ + sequence % num_letters_) * chunk_bytes_;
}

bool SharedCommunicator::Round(const char* call) {
  if (!status()) return false;
  auto* const members = reinterpret_cast<Member*>(memory_.data());
  if (!hook_ || hook_(round_)) Raise(members[rank()].rounds[round_ % 2], round_);
  for (int i = 1; i < size(); ++i) {
    const int member = (rank() + i) % size();
    if (!watch_.Wait(members[member].rounds[round_ % 2], round_, 0, member, call)) return false;
  }
  return true;
}

void SharedCommunicator::Barrier() {
  if (Round("barrier")) ++round_;
}

void SharedCommunicator::AllGather(std::span<const std::byte> mine, std::span<std::byte> all) {
  MOEBIUS_CHECK_EQ(all.size(), mine.size() * static_cast<size_t>(size()));
  for (size_t begin = 0; begin < mine.size() && status(); begin += chunk_bytes_) {
    const size_t count = std::min(chunk_bytes_, mine.size() - begin);
    std::memcpy(BufferOf(rank()), mine.data() + begin, count);
    bytes_.gather += static_cast<int64_t>(count);
    if (!Round("all-gather")) return;
    for (int member = 0; member < size(); ++member) {
      std::memcpy(all.data() + static_cast<size_t>(member) * mine.size() + begin, BufferOf(member),
                  count);
    }
    ++round_;
  }
}

void SharedCommunicator::AllGatherRows(Mat mine, Mat all, std::span<const int64_t> row_begin) {
  const int64_t bytes = RowBytes(mine);
  const int64_t piece = std::max<int64_t>(1, static_cast<int64_t>(chunk_bytes_) / bytes);
  MOEBIUS_CHECK_LE(bytes, static_cast<int64_t>(chunk_bytes_));
  int64_t most = 0;
  for (int member = 0; member < size(); ++member) {
    const auto m = static_cast<size_t>(member);
    most = std::max(most, row_begin[m + 1] - row_begin[m]);
  }
  for (int64_t begin = 0; begin < most && status(); begin += piece) {
    const auto rows_of = [&](int64_t rows) { return std::clamp(rows - begin, int64_t{0}, piece); };
    const int64_t rows = rows_of(mine.rows);
    CopyRows(mine.RowBytes(begin), StrideBytes(mine), BufferOf(rank()), bytes, rows, bytes);
    bytes_.gather += rows * bytes;
    if (!Round("all-gather of rows")) return;
    for (int member = 0; member < size(); ++member) {
      const auto m = static_cast<size_t>(member);
      CopyRows(BufferOf(member), bytes, all.RowBytes(row_begin[m] + begin), StrideBytes(all),
               rows_of(row_begin[m + 1] - row_begin[m]), bytes);
    }
    ++round_;
  }
}

void SharedCommunicator::AllGatherColumns(Mat mine, Mat all,
                                          std::span<const int64_t> column_begin) {
  const auto element = static_cast<int64_t>(SizeOf(mine.dtype));
  int64_t widest = 1;
  for (int member = 0; member < size(); ++member) {
    const auto m = static_cast<size_t>(member);
    widest = std::max(widest, (column_begin[m + 1] - column_begin[m]) * element);
  }
  MOEBIUS_CHECK_LE(widest, static_cast<int64_t>(chunk_bytes_));
  const int64_t piece = static_cast<int64_t>(chunk_bytes_) / widest;
  for (int64_t begin = 0; begin < all.rows && status(); begin += piece) {
    const int64_t rows = std::min(piece, all.rows - begin);
    CopyRows(mine.RowBytes(begin), StrideBytes(mine), BufferOf(rank()), RowBytes(mine), rows,
             RowBytes(mine));
    bytes_.gather += rows * RowBytes(mine);
    if (!Round("all-gather of columns")) return;
    for (int member = 0; member < size(); ++member) {
      const auto m = static_cast<size_t>(member);
      const int64_t bytes = (column_begin[m + 1] - column_begin[m]) * element;
      CopyRows(BufferOf(member), bytes, all.RowBytes(begin) + column_begin[m] * element,
               StrideBytes(all), rows, bytes);
    }
    ++round_;
  }
}

void SharedCommunicator::SumBuffers(DType dtype, int64_t first, int64_t count, std::byte* out) {
  const int64_t begin = first * static_cast<int64_t>(SizeOf(dtype));
  for (int member = 0; member < size(); ++member) {
    parts_[static_cast<size_t>(member)] = BufferOf(member) + begin;
  }
  SumParts(parts_, dtype, count, out);
}

void SharedCommunicator::SumRows(int64_t first, Mat out) {
  const bool has_gaps = out.stride != out.cols;
  const int64_t step = has_gaps ? 1 : std::max<int64_t>(out.rows, 1);
  for (int64_t row = 0; row < out.rows; row += step) {
    SumBuffers(out.dtype, (first + row) * out.cols, step * out.cols, out.RowBytes(row));
  }
}

void SharedCommunicator::AllReduce(Mat data) {
  const int64_t bytes = RowBytes(data);
  MOEBIUS_CHECK_LE(bytes, static_cast<int64_t>(chunk_bytes_));
  const int64_t piece = static_cast<int64_t>(chunk_bytes_) / std::max<int64_t>(bytes, 1);
  for (int64_t begin = 0; begin < data.rows && status(); begin += piece) {
    const Mat rows = data.Rows(begin, std::min(piece, data.rows - begin));
    CopyRows(BytesOf(rows), StrideBytes(rows), BufferOf(rank()), bytes, rows.rows, bytes);
    bytes_.reduce += rows.rows * bytes;
    if (!Round("all-reduce")) return;
    if (rows.rows * bytes * (size() - 2) < kTwoRoundBytes) {
      SumRows(0, rows);
    } else if (!GatherSums(rows)) {
      return;
    }
    ++round_;
  }
}

// Everybody adding up everything reads size() times the data; here each member adds up its part,
// and the next round gathers the sums.
bool SharedCommunicator::GatherSums(Mat rows) {
  const auto element = static_cast<int64_t>(SizeOf(rows.dtype));
  const auto bounds = SplitEvenly(rows.rows * rows.cols, size(), static_cast<int64_t>(kLine));
  const int64_t first = bounds[static_cast<size_t>(rank())];
  const int64_t count = bounds[static_cast<size_t>(rank()) + 1] - first;
  for (int member = 0; member < size(); ++member) {
    parts_[static_cast<size_t>(member)] = BufferOf(member) + first * element;
  }
  ++round_;  // its buffers are others
  SumParts(parts_, rows.dtype, count, BufferOf(rank()));
  bytes_.reduce += count * element;
  if (!Round("all-reduce")) return false;
  for (int member = 0; member < size(); ++member) {
    const auto m = static_cast<size_t>(member);
    const std::byte* from = BufferOf(member);
    for (int64_t at = bounds[m]; at < bounds[m + 1];) {
      const int64_t run = std::min(bounds[m + 1] - at, rows.cols - at % rows.cols);
      std::byte* const to = rows.RowBytes(at / rows.cols) + at % rows.cols * element;
      std::memcpy(to, from, static_cast<size_t>(run * element));
      from += run * element;
      at += run;
    }
  }
  return true;
}

void SharedCommunicator::ReduceScatter(Mat data, Mat out, std::span<const int64_t> row_begin) {
  const int64_t bytes = RowBytes(data);
  MOEBIUS_CHECK_LE(bytes, static_cast<int64_t>(chunk_bytes_));
  const int64_t piece = static_cast<int64_t>(chunk_bytes_) / std::max<int64_t>(bytes, 1);
  const int64_t first = row_begin[static_cast<size_t>(rank())];
  for (int64_t begin = 0; begin < data.rows && status(); begin += piece) {
    const int64_t rows = std::min(piece, data.rows - begin);
    CopyRows(data.RowBytes(begin), StrideBytes(data), BufferOf(rank()), bytes, rows, bytes);
    bytes_.reduce += rows * bytes;
    if (!Round("reduce-scatter")) return;
    const int64_t from = std::max(begin, first);
    const int64_t to = std::min(begin + rows, first + out.rows);
    if (from < to) SumRows(from - begin, out.Rows(from - first, to - from));
    ++round_;
  }
}

void SharedCommunicator::Broadcast(int root, std::span<std::byte> data) {
  for (size_t begin = 0; begin < data.size() && status(); begin += chunk_bytes_) {
    const size_t count = std::min(chunk_bytes_, data.size() - begin);
    if (rank() == root) {
      std::memcpy(BufferOf(root), data.data() + begin, count);
      bytes_.broadcast += static_cast<int64_t>(count);
    }
    if (!Round("broadcast")) return;
    if (rank() != root) std::memcpy(data.data() + begin, BufferOf(root), count);
    ++round_;
  }
}

void SharedCommunicator::Send(int peer, std::span<const std::byte> data) {
  Mailbox& box = MailboxOf(rank(), peer);
  for (size_t begin = 0; begin < data.size() && status(); begin += chunk_bytes_) {
    const uint32_t letter = ++sent_[static_cast<size_t>(peer)];
    // This one takes the place of the one num_letters_ before it.
    if (!watch_.Wait(box.read, letter - num_letters_, num_letters_ - 1, peer, "send")) return;
    const size_t count = std::min(chunk_bytes_, data.size() - begin);
    std::memcpy(LetterOf(rank(), peer, letter), data.data() + begin, count);
    bytes_.send += static_cast<int64_t>(count);
    if (!hook_ || hook_(letter)) Raise(box.written, letter);
  }
}

void SharedCommunicator::Receive(int peer, std::span<std::byte> data) {
  Mailbox& box = MailboxOf(peer, rank());
  for (size_t begin = 0; begin < data.size() && status(); begin += chunk_bytes_) {
    const uint32_t letter = ++received_[static_cast<size_t>(peer)];
    const size_t count = std::min(chunk_bytes_, data.size() - begin);
    if (!watch_.Wait(box.written, letter, num_letters_ - 1, peer, "receive")) return;
    std::memcpy(data.data() + begin, LetterOf(peer, rank(), letter), count);
    Raise(box.read, letter);
  }
}

}  // namespace moebius::comm
