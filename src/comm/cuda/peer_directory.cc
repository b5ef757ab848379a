#include "comm/cuda/peer_directory.h"

#include <algorithm>
#include <chrono>
#include <utility>

#include "base/check.h"
#include "platform/cuda/device.h"

namespace moebius::comm {
namespace {

// All ranks have their memory by then; what is left takes milliseconds.
constexpr auto kMailTimeout = std::chrono::seconds(60);

tl::unexpected<Error> CannotShare(int owner, const MailAddress& mail, const Error& error) {
  return MakeError(ErrorCode::kUnsupported,
                   "the GPU memory of rank {} (process {}): {}; expected a driver, and a "
                   "container, that let processes share it, or --all2all-backend inproc "
                   "--deterministic",
                   owner, mail.process, error.message());
}

}  // namespace

using platform::FileDescriptor;
using platform::cuda::ShareableMemory;

Result<PeerDirectory> PeerDirectory::Meet(Communicator& world, const Status& status, int device,
                                          std::span<const ShareableMemory* const> parts,
                                          const AbortWord& abort) {
  MOEBIUS_CHECK_LE(parts.size(), kMaxParts);
  Result<DescriptorMail> mail = DescriptorMail::Open();
  Entry mine = {.failed = status && mail ? 0 : 1, .device = device, .mail = {}};
  if (mail) mine.mail = mail->address();
  for (size_t part = 0; part < parts.size(); ++part) {
    mine.parts[part] = {
        .address = static_cast<int64_t>(reinterpret_cast<uintptr_t>(parts[part]->data())),
        .size = static_cast<int64_t>(parts[part]->size())};
  }
  PeerDirectory directory;
  directory.rank_ = world.rank();
  directory.entries_.resize(static_cast<size_t>(world.size()));
  world.AllGather(std::as_bytes(std::span(&mine, 1)),
                  std::as_writable_bytes(std::span(directory.entries_)));
  MOEBIUS_TRY(status);
  if (!mail) return tl::unexpected(std::move(mail).error());
  MOEBIUS_TRY(world.status());
  const auto failed = std::ranges::find_if(directory.entries_, &Entry::failed);
  if (failed != directory.entries_.end()) {
    return MakeError(ErrorCode::kUnavailable, "rank {} could not start",
                     failed - directory.entries_.begin());
  }
  MOEBIUS_TRY(directory.PassDescriptors(*mail, parts, abort));
  return directory;
}

Status PeerDirectory::PassDescriptors(DescriptorMail& mail,
                                      std::span<const ShareableMemory* const> mine,
                                      const AbortWord& abort) {
  std::vector<MailAddress> addresses;
  for (const Entry& entry : entries_) addresses.push_back(entry.mail);
  const auto is_here = [&](const MailAddress& address) {
    return address.process == mail.address().process;
  };
  if (std::ranges::all_of(addresses, is_here)) return {};
  DescriptorMail::Descriptors descriptors;
  for (const ShareableMemory* part : mine) {
    if (part->size() == 0) continue;
    Result<FileDescriptor> descriptor = part->Export();
    if (!descriptor) return CannotShare(rank_, mail.address(), descriptor.error());
    descriptors.push_back(std::move(*descriptor));
  }
  MOEBIUS_ASSIGN(std::vector<DescriptorMail::Descriptors> received,
                 mail.Exchange(rank_, addresses, descriptors,
                               {.deadline = Clock::now() + kMailTimeout, .abort = &abort}));
  for (size_t rank = 0; rank < received.size(); ++rank) {
    DescriptorMail::Descriptors of_parts(kMaxParts);
    size_t next = 0;
    for (size_t part = 0; part < kMaxParts && next < received[rank].size(); ++part) {
      if (entries_[rank].parts[part].size == 0) continue;
      of_parts[part] = std::move(received[rank][next++]);
    }
    descriptors_.push_back(std::move(of_parts));
  }
  return {};
}

bool PeerDirectory::shares_process() const {
  const auto process = [](const Entry& entry) { return entry.mail.process; };
  return std::ranges::count(entries_, entries_[static_cast<size_t>(rank_)].mail.process, process) >
         1;
}

Result<std::byte*> PeerDirectory::Map(int rank, size_t part,
                                      std::vector<ShareableMemory>* mappings) {
  const Entry& entry = entries_[static_cast<size_t>(rank)];
  const auto size = static_cast<size_t>(entry.parts[part].size);
  auto* const address =
      reinterpret_cast<std::byte*>(static_cast<uintptr_t>(entry.parts[part].address));
  if (size == 0 || rank == rank_) return address;
  MOEBIUS_TRY(platform::cuda::CheckLink(static_cast<int>(entry.device)));
  if (entry.mail.process == entries_[static_cast<size_t>(rank_)].mail.process) {
    MOEBIUS_TRY(platform::cuda::LetCurrentDevice(address, size));
    return address;
  }
  const FileDescriptor descriptor = std::move(descriptors_[static_cast<size_t>(rank)][part]);
  Result<ShareableMemory> mapping = ShareableMemory::Import(descriptor, size);
  if (!mapping) return CannotShare(rank, entry.mail, mapping.error());
  mappings->push_back(std::move(*mapping));
  return mappings->back().data();
}

}  // namespace moebius::comm
