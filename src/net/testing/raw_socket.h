// A plain TCP socket to a server on this machine, for tests that must say exactly which bytes go
// out and when. Every wait is bounded.
#pragma once

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <string>
#include <string_view>
#include <utility>

namespace moebius::net {

class RawSocket {
 public:
  // `receive_buffer`: the kernel's, for readers that are to be slow.
  explicit RawSocket(int port, int receive_buffer = 0, bool ipv6 = false) {
    fd_ = socket(ipv6 ? AF_INET6 : AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (receive_buffer > 0) {
      setsockopt(fd_, SOL_SOCKET, SO_RCVBUF, &receive_buffer, sizeof(receive_buffer));
    }
    sockaddr_in v4{};
    v4.sin_family = AF_INET;
    v4.sin_port = htons(static_cast<uint16_t>(port));
    v4.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    sockaddr_in6 v6{};
    v6.sin6_family = AF_INET6;
    v6.sin6_port = v4.sin_port;
    v6.sin6_addr = in6addr_loopback;
    is_connected_ = ipv6 ? connect(fd_, reinterpret_cast<sockaddr*>(&v6), sizeof(v6)) == 0
                         : connect(fd_, reinterpret_cast<sockaddr*>(&v4), sizeof(v4)) == 0;
  }
  RawSocket(RawSocket&& other) noexcept
      : fd_(std::exchange(other.fd_, -1)), is_connected_(other.is_connected_) {}
  RawSocket& operator=(RawSocket&&) = delete;
  ~RawSocket() { Close(); }

  bool is_connected() const { return is_connected_; }
  int fd() const { return fd_; }

  // False: the server closed the connection.
  bool Send(std::string_view bytes) {
    while (!bytes.empty()) {
      const ssize_t n = send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
      if (n <= 0) return false;
      bytes.remove_prefix(static_cast<size_t>(n));
    }
    return true;
  }

  // What comes next, at most `max` bytes; empty: the end, or nothing within the time.
  std::string Receive(size_t max = 64 << 10, int timeout_ms = 10000) {
    pollfd wait{fd_, POLLIN, 0};
    if (poll(&wait, 1, timeout_ms) <= 0) return {};
    std::string bytes(max, '\0');
    const ssize_t n = recv(fd_, bytes.data(), bytes.size(), 0);
    bytes.resize(n > 0 ? static_cast<size_t>(n) : 0);
    return bytes;
  }

  // Up to the server's close.
  std::string ReceiveAll(int timeout_ms = 10000) {
    std::string all;
    for (std::string bytes = Receive(64 << 10, timeout_ms); !bytes.empty();
         bytes = Receive(64 << 10, timeout_ms)) {
      all += bytes;
    }
    return all;
  }

  // Until what came ends with `end`, or no more comes.
  std::string ReceiveUntil(std::string_view end) {
    std::string all;
    while (!all.ends_with(end)) {
      const std::string bytes = Receive(1);
      if (bytes.empty()) break;
      all += bytes;
    }
    return all;
  }

  // One answer with a Content-Length: its head and body.
  std::string ReceiveAnswer() {
    std::string answer = ReceiveUntil("\r\n\r\n");
    const size_t at = answer.find("Content-Length: ");
    if (at == std::string::npos) return answer;
    const size_t length = std::strtoul(answer.c_str() + at + 16, nullptr, 10);
    const size_t whole = answer.size() + length;
    while (answer.size() < whole) {
      const std::string bytes = Receive(whole - answer.size());
      if (bytes.empty()) break;
      answer += bytes;
    }
    return answer;
  }

  // Whether the server closed the connection (or reset it) within the time.
  bool IsClosedWithin(int timeout_ms) {
    pollfd wait{fd_, POLLIN, 0};
    if (poll(&wait, 1, timeout_ms) <= 0) return false;
    char byte = 0;
    return recv(fd_, &byte, 1, 0) <= 0;
  }

  void ShutdownSend() { shutdown(fd_, SHUT_WR); }
  // A close that the other side sees as a reset.
  void Reset() {
    const linger at_once{1, 0};
    setsockopt(fd_, SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once));
    Close();
  }
  void Close() {
    if (fd_ >= 0) close(std::exchange(fd_, -1));
  }

 private:
  int fd_ = -1;
  bool is_connected_ = false;
};

}  // namespace moebius::net
