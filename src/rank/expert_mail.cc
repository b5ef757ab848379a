#include "rank/expert_mail.h"

#include <xxhash.h>

#include <algorithm>
#include <optional>
#include <utility>

#include "base/check.h"
#include "comm/lost_time.h"
#include "moe/migrate/expert_checksum.h"

namespace moebius::rank {
namespace {

using comm::Clock;

constexpr int kMailTries = 2;  // a piece that came wrong may have met with a passing fault

tl::unexpected<Error> NotWanted() {
  return MakeError(ErrorCode::kCancelled, "not wanted any more");
}

}  // namespace

ExpertMail::ExpertMail(const BalanceBoard& board, MailOptions options, moe::ExpertStore* store)
    : board_(board),
      options_(std::move(options)),
      store_(store),
      lost_(static_cast<size_t>(board.shape().num_ranks)) {}

uint64_t ExpertMail::ChecksumOf(std::span<const std::byte> bytes) const {
  if (options_.memory.checksum) return options_.memory.checksum(bytes);
  return XXH3_64bits(bytes.data(), bytes.size());
}

void ExpertMail::Stop() {
  is_stopping_.store(true);
  comm::Ring(board_.CellOf(options_.rank).bell);
}

bool ExpertMail::is_ending() const {
  return is_stopping_.load() || (options_.abort != nullptr && options_.abort->is_set());
}

void ExpertMail::ServeUntil(const IsOver& is_over, Clock::time_point deadline) {
  comm::Signal& bell = board_.CellOf(options_.rank).bell;
  const comm::WaitBound bound{.deadline = deadline, .abort = options_.abort};
  while (true) {
    const uint32_t seen = comm::SequenceOf(bell.word.load());  // before the looks below
    Serve();
    if (is_over() || is_ending()) return;
    // However often it rings.
    const Clock::time_point now = Clock::now();
    if (now >= deadline && now >= deadline + comm::LostSince(bound.since)) return;
    comm::WaitForChange(bell, seen, bound);
  }
}

void ExpertMail::Serve() {
  for (int owner = 0; owner < board_.shape().num_ranks; ++owner) {
    const uint64_t word = board_.MailboxOf(owner).word.load();
    if (Mailbox::StateOf(word) != MailState::kAsked) continue;
    if (Mailbox::SourceOf(word) == options_.rank) AnswerTo(owner, word);
  }
}

void ExpertMail::AnswerTo(int owner, uint64_t asked) {
  const BalanceHooks& hooks = options_.hooks;
  if (hooks.asked) {
    uint64_t& lost = lost_[static_cast<size_t>(owner)];
    if (lost == asked) return;
    if (!hooks.asked(options_.rank, owner)) {
      lost = asked;
      return;
    }
  }
  Mailbox& mailbox = board_.MailboxOf(owner);
  uint64_t word = asked;
  if (!mailbox.word.compare_exchange_strong(word, Mailbox::With(asked, MailState::kServing))) {
    return;  // taken back
  }
  const std::span<std::byte> chunk = ChunkOf(owner);
  const int layer = mailbox.layer;
  const bool has_layer = layer >= 0 && layer < board_.shape().num_layers;
  const size_t size = has_layer ? store_->ExpertBytes(layer) : 0;
  const bool has_slot =
      has_layer && mailbox.local_slot >= 0 && mailbox.local_slot < store_->NumSlots(layer);
  mailbox.is_served = has_slot && mailbox.length <= chunk.size() && mailbox.offset <= size &&
                      mailbox.length <= size - mailbox.offset;
  if (mailbox.is_served && mailbox.length > 0) {
    const std::span<std::byte> piece = chunk.first(mailbox.length);
    store_->Read(layer, mailbox.local_slot, mailbox.offset, piece);
    mailbox.checksum = ChecksumOf(piece);
    if (hooks.answered) hooks.answered(options_.rank, owner, piece);
  } else if (mailbox.is_served) {
    const auto read = [&](size_t offset, std::span<std::byte> piece) -> Status {
      store_->Read(layer, mailbox.local_slot, offset, piece);
      return {};
    };
    mailbox.checksum = *ChecksumOfAll(layer, chunk, sums_pieces(), read);
  }
  mailbox.word.store(Mailbox::With(asked, MailState::kAnswered));
  comm::Ring(board_.CellOf(owner).bell);
}

Result<uint64_t> ExpertMail::Ask(const PeerSlot& from, size_t offset, size_t length,
                                 const IsOver& is_over) {
  Mailbox& mailbox = board_.MailboxOf(options_.rank);
  mailbox.layer = from.layer;
  mailbox.local_slot = from.local_slot;
  mailbox.offset = offset;
  mailbox.length = length;
  const uint64_t asked = Mailbox::WordOf(MailState::kAsked, from.rank, ++sequence_);
  const uint64_t idle = Mailbox::With(asked, MailState::kIdle);
  mailbox.word.store(asked);
  comm::Ring(board_.CellOf(from.rank).bell);
  const auto is_answered = [&] {
    return Mailbox::StateOf(mailbox.word.load()) == MailState::kAnswered;
  };
  ServeUntil([&] { return is_answered() || is_over(); }, Clock::now() + options_.answer_deadline);
  if (uint64_t word = asked; mailbox.word.compare_exchange_strong(word, idle)) {
    if (is_over() || is_ending()) return NotWanted();
    return MakeError(
        ErrorCode::kDeadline, "rank {} did not answer within {} ms", from.rank,
        std::chrono::duration_cast<std::chrono::milliseconds>(options_.answer_deadline).count());
  }
  // A source that writes already has the mailbox, and reads its slot, until it is done.
  ServeUntil(is_answered, Clock::time_point::max());
  if (!is_answered()) return MakeError(ErrorCode::kCancelled, "this rank is ending");
  const bool is_served = mailbox.is_served;
  const uint64_t checksum = mailbox.checksum;
  mailbox.word.store(idle);
  if (!is_served) {
    return MakeError(ErrorCode::kUnavailable, "rank {} has no bytes {}+{} of slot {} of layer {}",
                     from.rank, offset, length, from.local_slot, from.layer);
  }
  return checksum;
}

Status ExpertMail::Pace(size_t bytes, const IsOver& is_over) {
  ServeUntil(is_over, next_fetch_);
  if (is_over() || is_ending()) return NotWanted();
  if (options_.bytes_per_second <= 0) return {};
  const auto time = std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(
      static_cast<double>(bytes) / static_cast<double>(options_.bytes_per_second)));
  next_fetch_ = std::max(next_fetch_, Clock::now()) + time;
  return {};
}

Status ExpertMail::FetchPiece(const PeerSlot& from, size_t offset, size_t length,
                              const IsOver& is_over) {
  const std::span<const std::byte> piece = ChunkOf(options_.rank).first(length);
  for (int i = 0; i < kMailTries; ++i) {
    MOEBIUS_TRY(Pace(length, is_over));
    MOEBIUS_ASSIGN(const uint64_t expected, Ask(from, offset, length, is_over));
    board_.counters().num_bytes += static_cast<int64_t>(length);
    if (ChecksumOf(piece) == expected) return {};
    ++board_.counters().num_corrupt;
  }
  return MakeError(ErrorCode::kCorrupt, "{} bytes at {} came from rank {} with a wrong checksum",
                   length, offset, from.rank);
}

Status ExpertMail::Fetch(const PeerSlot& from, int staging, const IsOver& is_over) {
  const std::span<const std::byte> chunk = ChunkOf(options_.rank);
  const size_t size = store_->ExpertBytes(from.layer);
  for (size_t offset = 0; offset < size; offset += chunk.size()) {
    const size_t length = std::min(chunk.size(), size - offset);
    MOEBIUS_TRY(FetchPiece(from, offset, length, is_over));
    store_->Write(staging, offset, chunk.first(length));
  }
  // The source looks at all of it once more, so a slot that changed meanwhile shows, too.
  MOEBIUS_ASSIGN(const uint64_t expected, Ask(from, 0, 0, is_over));
  if (Status status = CheckStaged(from.layer, staging, expected, /*from_peer=*/true, is_over);
      !status) {
    return tl::unexpected(status.error().WithContext(fmt::format("from rank {}", from.rank)));
  }
  return {};
}

Status ExpertMail::Copy(int layer, const Source& source, int staging, const IsOver& is_over) {
  const size_t size = store_->ExpertBytes(layer);
  const size_t most = board_.shape().chunk_bytes;
  moe::ExpertChecksum read;
  std::optional<uint64_t> expected;
  for (size_t offset = 0; offset < size;) {
    MOEBIUS_ASSIGN(const moe::ExpertStore::Stored stored, source(offset));
    MOEBIUS_CHECK(!stored.bytes.empty() && stored.bytes.size() <= size - offset);
    expected = stored.checksum;
    for (std::span<const std::byte> rest = stored.bytes; !rest.empty();) {
      const std::span<const std::byte> piece = rest.first(std::min(rest.size(), most));
      MOEBIUS_TRY(Pace(piece.size(), is_over));
      store_->Write(staging, offset, piece);
      read.Add(piece);
      offset += piece.size();
      rest = rest.subspan(piece.size());
    }
  }
  return CheckStaged(layer, staging, expected.value_or(read.value()), /*from_peer=*/false, is_over);
}

Result<uint64_t> ExpertMail::ChecksumOfAll(int layer, std::span<std::byte> chunk, bool of_pieces,
                                           const Reading& read) const {
  const size_t size = store_->ExpertBytes(layer);
  moe::ExpertChecksum whole;
  for (size_t offset = 0; offset < size; offset += chunk.size()) {
    const std::span<std::byte> piece = chunk.first(std::min(chunk.size(), size - offset));
    MOEBIUS_TRY(read(offset, piece));
    if (of_pieces) {
      const uint64_t sum = ChecksumOf(piece);
      whole.Add(std::as_bytes(std::span(&sum, 1)));
    } else {
      whole.Add(piece);
    }
  }
  return whole.value();
}

// What came from a peer is summed up as the peer does it, what the host has had as the host does.
Status ExpertMail::CheckStaged(int layer, int staging, uint64_t expected, bool from_peer,
                               const IsOver& is_over) {
  // Nothing is asked: the chunk is this rank's own.
  const std::span<std::byte> chunk =
      from_peer ? ChunkOf(options_.rank) : board_.ChunkOf(options_.rank);
  const auto read = [&](size_t offset, std::span<std::byte> piece) -> Status {
    MOEBIUS_TRY(Pace(0, is_over));
    store_->ReadStaging(staging, offset, piece);
    return {};
  };
  MOEBIUS_ASSIGN(const uint64_t staged,
                 ChecksumOfAll(layer, chunk, from_peer && sums_pieces(), read));
  if (staged == expected) return {};
  ++board_.counters().num_corrupt;
  return MakeError(ErrorCode::kCorrupt, "staging slot {} has checksum {:016x}, expected {:016x}",
                   staging, staged, expected);
}

}  // namespace moebius::rank
