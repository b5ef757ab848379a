// For tests: a blocking HTTP client over one real socket, as crude as a test of servers needs it
// (raw bytes, slow reading, sudden death).
#pragma once

#include <arpa/inet.h>
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace moebius::serve {

struct TestAnswer {
  int status = 0;
  std::map<std::string, std::string> headers;  // names in lower case
  std::string body;                            // chunks put together

  nlohmann::json Json() const { return nlohmann::json::parse(body); }
  std::string Header(const std::string& name) const {
    const auto found = headers.find(name);
    return found == headers.end() ? "" : found->second;
  }
};

class TestClient {
 public:
  // `receive_buffer`: 0: the system's.
  explicit TestClient(int port, int receive_buffer = 0) : fd_(socket(AF_INET, SOCK_STREAM, 0)) {
    if (receive_buffer > 0) {
      setsockopt(fd_, SOL_SOCKET, SO_RCVBUF, &receive_buffer, sizeof(receive_buffer));
    }
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(static_cast<uint16_t>(port));
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    is_connected_ = connect(fd_, reinterpret_cast<sockaddr*>(&address), sizeof(address)) == 0;
  }
  ~TestClient() { Close(); }
  TestClient(const TestClient&) = delete;
  TestClient& operator=(const TestClient&) = delete;

  bool is_connected() const { return is_connected_; }

  void Close() {
    if (fd_ >= 0) close(std::exchange(fd_, -1));
  }

  void SendRaw(std::string_view bytes) {
    while (!bytes.empty()) {
      const ssize_t n = send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
      if (n <= 0) return;
      bytes.remove_prefix(static_cast<size_t>(n));
    }
  }

  void Send(const std::string& method, const std::string& target, const std::string& body = "",
            const std::vector<std::string>& headers = {}) {
    std::string text = fmt::format("{} {} HTTP/1.1\r\nHost: test\r\n", method, target);
    for (const std::string& header : headers) text += header + "\r\n";
    if (!body.empty() || method == "POST") {
      text += fmt::format("Content-Type: application/json\r\nContent-Length: {}\r\n", body.size());
    }
    SendRaw(text + "\r\n" + body);
  }

  // Reads until the raw bytes hold `needle`; false: the connection ended first, or 20 s passed.
  bool ReadUntil(std::string_view needle) {
    while (raw_.find(needle) == std::string::npos) {
      if (!ReadSome()) return false;
    }
    return true;
  }

  TestAnswer ReadAnswer(bool has_body = true) {
    TestAnswer answer;
    if (!ReadUntil("\r\n\r\n")) return answer;
    ParseHead(&answer);
    if (!has_body) return answer;
    if (answer.Header("transfer-encoding") == "chunked") {
      ReadChunks(&answer.body);
    } else if (const std::string length = answer.Header("content-length"); !length.empty()) {
      answer.body = TakeBytes(std::stoul(length));
    }
    return answer;
  }

  const std::string& raw() const { return raw_; }
  size_t largest_chunk() const { return largest_chunk_; }  // of the bodies read, in bytes

 private:
  bool ReadSome() {
    pollfd wait{fd_, POLLIN, 0};
    if (poll(&wait, 1, 20000) <= 0) return false;
    char buffer[16384];
    const ssize_t n = recv(fd_, buffer, sizeof(buffer), 0);
    if (n <= 0) return false;
    raw_.append(buffer, static_cast<size_t>(n));
    return true;
  }

  void ParseHead(TestAnswer* answer) {
    const size_t end = raw_.find("\r\n\r\n");
    std::string head = raw_.substr(0, end + 2);
    raw_.erase(0, end + 4);
    answer->status = std::stoi(head.substr(head.find(' ') + 1));
    for (size_t at = head.find("\r\n") + 2; at < head.size();) {
      const size_t line_end = head.find("\r\n", at);
      const size_t colon = head.find(':', at);
      std::string name = head.substr(at, colon - at);
      std::ranges::transform(name, name.begin(), [](unsigned char c) { return std::tolower(c); });
      size_t value = colon + 1;
      while (head[value] == ' ') ++value;
      answer->headers[name] = head.substr(value, line_end - value);
      at = line_end + 2;
    }
  }

  std::string TakeBytes(size_t count) {
    while (raw_.size() < count && ReadSome()) {
    }
    std::string taken = raw_.substr(0, count);
    raw_.erase(0, count);
    return taken;
  }

  void ReadChunks(std::string* body) {
    while (ReadUntil("\r\n")) {
      const size_t size = std::stoul(raw_, nullptr, 16);
      raw_.erase(0, raw_.find("\r\n") + 2);
      largest_chunk_ = std::max(largest_chunk_, size);
      const std::string chunk = TakeBytes(size + 2);
      if (size == 0) return;
      body->append(chunk, 0, size);
    }
    body->append("[the connection broke]");
  }

  int fd_;
  bool is_connected_ = false;
  std::string raw_;
  size_t largest_chunk_ = 0;
};

inline TestAnswer Call(int port, const std::string& method, const std::string& target,
                       const std::string& body = "", const std::vector<std::string>& headers = {}) {
  TestClient client(port);
  client.Send(method, target, body, headers);
  return client.ReadAnswer(method != "HEAD");
}

inline TestAnswer Post(int port, const std::string& target, const nlohmann::json& body,
                       const std::vector<std::string>& headers = {}) {
  return Call(port, "POST", target, body.dump(), headers);
}

// A stream's events; [DONE] must be the last and is left out.
inline std::vector<nlohmann::json> EventsOf(const std::string& body) {
  std::vector<nlohmann::json> events;
  bool is_done = false;
  for (size_t at = 0; at < body.size();) {
    const size_t end = body.find("\n\n", at);
    if (end == std::string::npos) {
      ADD_FAILURE() << "an event without an end: " << body.substr(at);
      break;
    }
    const std::string event = body.substr(at, end - at);
    EXPECT_FALSE(is_done) << "after [DONE]: " << event;
    EXPECT_TRUE(event.starts_with("data: ")) << event;
    if (event == "data: [DONE]") {
      is_done = true;
    } else {
      events.push_back(nlohmann::json::parse(event.substr(6)));
    }
    at = end + 2;
  }
  EXPECT_TRUE(is_done) << body.substr(body.size() - std::min<size_t>(body.size(), 200));
  return events;
}

// What a choice's events say, put together; completions and chat.
inline std::string TextOf(const std::vector<nlohmann::json>& events, int index = 0) {
  std::string text;
  for (const nlohmann::json& event : events) {
    if (!event.contains("choices")) continue;
    for (const nlohmann::json& choice : event["choices"]) {
      if (choice["index"] != index) continue;
      if (choice.contains("text")) text += choice["text"].get<std::string>();
      if (!choice.contains("delta")) continue;
      const nlohmann::json& delta = choice["delta"];
      if (delta.contains("content") && delta["content"].is_string()) {
        text += delta["content"].get<std::string>();
      }
    }
  }
  return text;
}

}  // namespace moebius::serve
