// A server that says exactly what it is told to, for tests of clients: one answer a connection,
// whatever is asked.
#pragma once

#include <gtest/gtest.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

namespace moebius::net {

class RawServer {
 public:
  struct Script {
    std::string bytes;     // the answer to the first request
    size_t cut = 1 << 20;  // sent in pieces of so many bytes
    bool stays = false;    // waits for another request, answers `next` and closes
    std::string next = {};
  };

  // The i-th connection follows the i-th script; none is taken beyond them. `backlog`: as listen's.
  explicit RawServer(std::vector<Script> scripts, int backlog = 16) : scripts_(std::move(scripts)) {
    fd_ = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    EXPECT_EQ(bind(fd_, reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0);
    EXPECT_EQ(listen(fd_, backlog), 0);
    socklen_t size = sizeof(address);
    getsockname(fd_, reinterpret_cast<sockaddr*>(&address), &size);
    port_ = ntohs(address.sin_port);
    thread_ = std::thread([this] {
      for (const Script& script : scripts_) {
        pollfd wait{fd_, POLLIN, 0};
        while (!stop_ && poll(&wait, 1, 20) == 0) continue;
        if (stop_) return;
        Serve(accept(fd_, nullptr, nullptr), script);
      }
    });
  }
  ~RawServer() {
    stop_ = true;
    thread_.join();
    close(fd_);
  }
  RawServer(const RawServer&) = delete;
  RawServer& operator=(const RawServer&) = delete;

  int port() const { return port_; }
  int num_connections() const { return num_connections_; }

 private:
  void Serve(int fd, const Script& script) {
    ++num_connections_;
    if (ReadHead(fd)) {
      SendAll(fd, script.bytes, script.cut);
      if (script.stays && ReadHead(fd)) SendAll(fd, script.next, script.cut);
    }
    close(fd);
  }
  // Up to an empty line; bodies are not for this server.
  bool ReadHead(int fd) {
    std::string head;
    char byte = 0;
    while (!head.ends_with("\r\n\r\n")) {
      pollfd wait{fd, POLLIN, 0};
      while (!stop_ && poll(&wait, 1, 20) == 0) continue;
      if (stop_ || recv(fd, &byte, 1, 0) <= 0) return false;
      head.push_back(byte);
    }
    return true;
  }
  static void SendAll(int fd, std::string_view bytes, size_t cut) {
    const int one = 1;
    setsockopt(fd, IPPROTO_TCP, 1 /* TCP_NODELAY */, &one, sizeof(one));
    while (!bytes.empty()) {
      const ssize_t n = send(fd, bytes.data(), std::min(cut, bytes.size()), MSG_NOSIGNAL);
      if (n <= 0) return;
      bytes.remove_prefix(static_cast<size_t>(n));
    }
  }

  std::vector<Script> scripts_;
  int fd_ = -1;
  int port_ = 0;
  std::atomic<bool> stop_{false};
  std::atomic<int> num_connections_{0};
  std::thread thread_;
};

}  // namespace moebius::net
