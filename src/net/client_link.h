// One connection of the client, plain or TLS. Tried without waiting; the client's thread only.
#pragma once

#include <array>
#include <cstddef>
#include <memory>
#include <string>
#include <string_view>

#include "net/event_loop.h"
#include "net/tls_stream.h"

namespace moebius::net {

struct ClientLink {
  explicit ClientLink(asio::io_context& io) : socket(io) {}

  IoOutcome Read(char* data, size_t size, size_t* num);
  // Takes off `out` what was sent; kOk: all.
  IoOutcome Write(std::array<std::string_view, 2>* out);
  // Of an idle one: not closed by the server.
  bool IsAlive();

  Socket socket;
  std::unique_ptr<TlsStream> tls;  // null: plain
  Clock::time_point idle_since;
  std::string error;  // kFailed: why
};

}  // namespace moebius::net
