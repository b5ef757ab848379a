// The client's side of TLS over a connected, non-blocking socket: OpenSSL, without waiting. What
// must wait says for what; the caller waits on the socket and calls again. One thread at a time.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>

#include "base/result.h"

namespace moebius::net {

// What all connections of a client share.
class TlsContext {
 public:
  // `verify_peer`: by the system's certificates (SSL_CERT_FILE and SSL_CERT_DIR as OpenSSL takes
  // them), and by name.
  static Result<std::unique_ptr<TlsContext>> Create(bool verify_peer);
  virtual ~TlsContext() = default;
};

enum class IoOutcome { kOk, kWantRead, kWantWrite, kEof, kFailed };

class TlsStream {
 public:
  // The context outlives the stream; the socket stays the caller's. `host`: whom the certificate
  // must name.
  static std::unique_ptr<TlsStream> Create(TlsContext* context, int fd, const std::string& host);
  virtual ~TlsStream() = default;

  virtual IoOutcome Handshake() = 0;
  // kOk: `*num` > 0 bytes. Ask again until it wants something: bytes may wait inside.
  virtual IoOutcome Read(char* data, size_t size, size_t* num) = 0;
  virtual IoOutcome Write(std::string_view bytes, size_t* num) = 0;
  virtual const std::string& error() const = 0;  // kFailed: why
};

}  // namespace moebius::net
