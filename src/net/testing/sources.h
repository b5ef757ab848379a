// Bodies to stream in tests, and what they must read as at the other end.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <utility>

#include "net/http_server.h"

namespace moebius::net {

// The byte at a place of a long body; no two seeds agree for long.
inline char PatternByte(uint64_t seed, size_t at) {
  const uint64_t x = (seed + 1) * 0x9e3779b97f4a7c15u + at * 0xbf58476d1ce4e5b9u;
  return static_cast<char>('a' + (x >> 40) % 26);
}

inline std::string Pattern(uint64_t seed, size_t from, size_t size) {
  std::string bytes(size, '\0');
  for (size_t i = 0; i < size; ++i) bytes[i] = PatternByte(seed, from + i);
  return bytes;
}

// `size` bytes of a pattern in pieces of at most `piece`, always ready; counts what was taken.
class PatternSource : public BodySource {
 public:
  PatternSource(uint64_t seed, size_t size, size_t piece, std::atomic<size_t>* taken = nullptr)
      : seed_(seed), size_(size), piece_(piece), taken_(taken) {}
  Piece Take() override {
    const size_t n = std::min(piece_, size_ - at_);
    Piece piece{Pattern(seed_, at_, n), at_ + n == size_};
    at_ += n;
    if (taken_ != nullptr) *taken_ += n;
    return piece;
  }

 private:
  const uint64_t seed_;
  const size_t size_;
  const size_t piece_;
  std::atomic<size_t>* const taken_;
  size_t at_ = 0;
};

// What another thread puts in comes out, merged.
class Mailbox {
 public:
  void Put(std::string_view bytes, bool is_last = false) {
    const std::lock_guard lock(mutex_);
    bytes_.append(bytes);
    is_last_ = is_last_ || is_last;
  }
  BodySource::Piece Take() {
    const std::lock_guard lock(mutex_);
    return {std::exchange(bytes_, {}), is_last_};
  }

 private:
  std::mutex mutex_;
  std::string bytes_;
  bool is_last_ = false;
};

class MailboxSource : public BodySource {
 public:
  explicit MailboxSource(std::shared_ptr<Mailbox> box, std::atomic<int>* num_alive = nullptr)
      : box_(std::move(box)), num_alive_(num_alive) {
    if (num_alive_ != nullptr) ++*num_alive_;
  }
  MailboxSource(const MailboxSource&) = delete;
  MailboxSource& operator=(const MailboxSource&) = delete;
  ~MailboxSource() override {
    if (num_alive_ != nullptr) --*num_alive_;
  }
  Piece Take() override { return box_->Take(); }

 private:
  std::shared_ptr<Mailbox> box_;
  std::atomic<int>* const num_alive_;
};

}  // namespace moebius::net
