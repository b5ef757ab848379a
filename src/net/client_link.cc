#include "net/client_link.h"

#include <sys/socket.h>

#include <boost/asio/buffer.hpp>
#include <cerrno>

namespace moebius::net {

IoOutcome ClientLink::Read(char* data, size_t size, size_t* num) {
  if (tls) {
    const IoOutcome outcome = tls->Read(data, size, num);
    if (outcome == IoOutcome::kFailed) error = tls->error();
    return outcome;
  }
  ErrorStatus status;
  do {
    *num = socket.read_some(asio::buffer(data, size), status);
  } while (status == asio::error::interrupted);
  if (!status) return IoOutcome::kOk;
  if (status == asio::error::would_block) return IoOutcome::kWantRead;
  if (status == asio::error::eof) return IoOutcome::kEof;
  error = status.message();
  return IoOutcome::kFailed;
}

IoOutcome ClientLink::Write(std::array<std::string_view, 2>* out) {
  for (std::string_view& part : *out) {
    while (!part.empty()) {
      size_t num = 0;
      if (tls) {
        const IoOutcome outcome = tls->Write(part, &num);
        if (outcome == IoOutcome::kFailed) error = tls->error();
        if (outcome != IoOutcome::kOk) return outcome;
      } else {
        ErrorStatus status;
        num = socket.write_some(asio::buffer(part.data(), part.size()), status);
        if (status == asio::error::interrupted) continue;
        if (status == asio::error::would_block) return IoOutcome::kWantWrite;
        if (status) {
          error = status.message();
          return IoOutcome::kFailed;
        }
      }
      part.remove_prefix(num);
    }
  }
  return IoOutcome::kOk;
}

bool ClientLink::IsAlive() {
  char byte = 0;
  const ssize_t n = recv(socket.native_handle(), &byte, 1, MSG_PEEK | MSG_DONTWAIT);
  // Bytes that nobody asked for are no answer; TLS has words of its own (session tickets).
  if (n > 0) return tls != nullptr;
  return n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK);
}

}  // namespace moebius::net
