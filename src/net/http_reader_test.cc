#include "net/http_reader.h"

#include <gtest/gtest.h>

#include <random>
#include <string>
#include <vector>

namespace moebius::net {
namespace {

constexpr size_t kMaxHeader = 4096;
constexpr size_t kMaxBody = 1000;

// What a connection's bytes read as: requests, and the refusal at the end if there is one. `cut`
// says where the bytes are cut.
std::string Read(const std::string& bytes, const std::vector<size_t>& cuts) {
  RequestReader reader(kMaxHeader, kMaxBody);
  std::string text;
  size_t at = 0;
  for (size_t i = 0; i <= cuts.size(); ++i) {
    const size_t end = i < cuts.size() ? cuts[i] : bytes.size();
    RequestReader::State state = reader.Feed(std::string_view(bytes).substr(at, end - at));
    at = end;
    while (state == RequestReader::State::kDone) {
      const bool keep_alive = reader.keep_alive();
      const int minor = reader.http_minor();
      const HttpRequest request = reader.Take();
      text += request.method + " " + request.target + " 1." + std::to_string(minor);
      text += keep_alive ? " keep" : " close";
      for (const HttpHeader& header : request.headers) {
        text += " " + header.name + "=" + header.value;
      }
      text += " [" + request.body + "]\n";
      state = reader.Feed({});
    }
  }
  if (reader.state() == RequestReader::State::kFailed) text += std::to_string(reader.status());
  return text;
}

std::string Read(const std::string& bytes) { return Read(bytes, {}); }

constexpr char kHost[] = "Host: a\r\n";

TEST(RequestReader, ReadsRequestsHoweverTheBytesAreCut) {
  const std::string bytes =
      "GET /a HTTP/1.1\r\nHost: a\r\nX:  y z \r\n\r\n"
      "\r\nPOST /b HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello"
      "POST /c HTTP/1.0\r\nContent-Length: 0\r\n\r\n"
      "POST /d HTTP/1.1\r\nhost: a\r\nTransfer-Encoding: Chunked\r\n\r\n"
      "3\r\nabc\r\n0A;ext=\"q\"\r\n0123456789\r\n000\r\nTrailer: t\r\n\r\n"
      "POST /z HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
      "GET https://h:1/e?f HTTP/1.1\r\nHost: h:1\r\n\r\n"
      "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n";
  const std::string expected =
      "GET /a 1.1 keep Host=a X=y z []\n"
      "POST /b 1.1 close Host=a Content-Length=5 Connection=close [hello]\n"
      "POST /c 1.0 close Content-Length=0 []\n"
      "POST /d 1.1 keep host=a Transfer-Encoding=Chunked [abc0123456789]\n"
      "POST /z 1.1 keep Host=a Transfer-Encoding=chunked []\n"
      "GET /e?f 1.1 keep Host=h:1 []\n"
      "OPTIONS * 1.1 keep Host=a []\n";
  EXPECT_EQ(Read(bytes), expected);
  for (size_t cut = 1; cut < bytes.size(); ++cut) EXPECT_EQ(Read(bytes, {cut}), expected) << cut;
  std::vector<size_t> every;
  for (size_t cut = 1; cut < bytes.size(); ++cut) every.push_back(cut);
  EXPECT_EQ(Read(bytes, every), expected);
}

TEST(RequestReader, RefusesWhatTwoReadersCouldReadDifferently) {
  const std::string post = std::string("POST / HTTP/1.1\r\n") + kHost;
  for (const std::string& head : std::vector<std::string>{
           "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n",
           "Transfer-Encoding: chunked\r\nContent-Length: 3\r\n",
           "Content-Length: 3\r\nContent-Length: 3\r\n",
           "Content-Length: 3\r\nContent-Length: 4\r\n",
           "Content-Length: 3, 3\r\n",
           "Content-Length: +3\r\n",
           "Content-Length: -3\r\n",
           "Content-Length: 3 4\r\n",
           "Content-Length: 0x3\r\n",
           "Content-Length:\r\n",
           "Content-Length: 99999999999999999999999\r\n",
           "Transfer-Encoding: gzip, chunked\r\n",
           "Transfer-Encoding: identity\r\n",
           "Transfer-Encoding: chunked, chunked\r\n",
           "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
           "Transfer-Encoding: xchunked\r\n",
           "Transfer-Encoding : chunked\r\n",
           "Content-Length : 3\r\n",
           "Host: b\r\n",
           "X: a\x01\r\n",
           std::string("X: a\0b\r\n", 8),
           "X: a\nY: b\r\n",
           "X: a\rY: b\r\n",
           "X a: b\r\n",
           ": b\r\n",
           "no colon\r\n",
       }) {
    const std::string answer = Read(post + head + "\r\nabc");
    EXPECT_EQ(answer, "400") << head;
  }
  EXPECT_EQ(Read("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"), "400");
}

TEST(RequestReader, RefusesBadRequestLinesAndChunks) {
  for (const char* line :
       {"GET /\r\n", "GET / HTTP/1.1\n", "GET  / HTTP/1.1\r\n", "GET / HTTP/1.2\r\n",
        "GET / HTTP/3.0\r\n", "GET / http/1.1\r\n", "GET /\t HTTP/1.1\r\n", "G@T / HTTP/1.1\r\n",
        " GET / HTTP/1.1\r\n", "PRI * HTTP/2.0\r\n", "\x16\x03\x01 hello TLS\r\n", "\r \r\n"}) {
    EXPECT_EQ(Read(std::string(line) + kHost + "\r\n"), "400") << line;
  }
  const std::string chunked =
      std::string("POST / HTTP/1.1\r\n") + kHost + "Transfer-Encoding: chunked\r\n\r\n";
  for (const char* body : {"g\r\n", "\r\n", "-1\r\n", "1 \r\na\r\n", "1\r\nab\r\n", "1\na\r\n",
                           "0x1\r\na\r\n", "ffffffffffffffff1\r\n", "1;\r\r\na\r\n",
                           "0\r\nbad trailer\r\n\r\n", "0\r\nContent-Length: 3\r\n\r\n"}) {
    // Some mistakes need what follows to be one.
    EXPECT_EQ(Read(chunked + body + "0\r\n\r\n"), "400") << body;
  }
  EXPECT_EQ(Read(chunked + "ffffffffffffffff\r\n"), "413");
}

TEST(RequestReader, LimitsHold) {
  const std::string get = std::string("GET / HTTP/1.1\r\n") + kHost;
  EXPECT_EQ(Read(get + "X: " + std::string(kMaxHeader, 'x') + "\r\n\r\n"), "431");
  EXPECT_EQ(Read("GET /" + std::string(kMaxHeader, 'x')), "431");
  std::string many;
  for (int i = 0; i < 1000; ++i) many += "X" + std::to_string(i) + ": yyyyyyyyyy\r\n";
  EXPECT_EQ(Read(get + many + "\r\n"), "431");
  std::vector<size_t> every;
  for (size_t cut = 1; cut < get.size() + many.size(); ++cut) every.push_back(cut);
  EXPECT_EQ(Read(get + many + "\r\n", every), "431");

  const std::string post = std::string("POST / HTTP/1.1\r\n") + kHost;
  EXPECT_EQ(Read(post + "Content-Length: 1001\r\n\r\n"), "413");
  const std::string chunked = post + "Transfer-Encoding: chunked\r\n\r\n";
  std::string ten;
  for (int i = 0; i < 10; ++i) ten += "64\r\n" + std::string(100, 'x') + "\r\n";
  EXPECT_NE(Read(chunked + ten + "0\r\n\r\n").find(" keep "), std::string::npos);
  EXPECT_EQ(Read(chunked + ten + "1\r\nx\r\n0\r\n\r\n"), "413");
  // A chunk's head, an extension or a trailer without an end.
  EXPECT_EQ(Read(chunked + std::string(kMaxHeader + 1, '0')), "400");
  EXPECT_EQ(Read(chunked + "1;" + std::string(kMaxHeader + 1, 'x')), "400");
  EXPECT_EQ(Read(chunked + "0\r\nX: " + std::string(kMaxHeader + 1, 'x')), "400");
}

TEST(RequestReader, KeepsNothingWhenIdle) {
  RequestReader reader(kMaxHeader, kMaxBody);
  EXPECT_EQ(reader.Feed(std::string("GET / HTTP/1.1\r\n") + kHost + "\r\nGET"),
            RequestReader::State::kDone);
  EXPECT_EQ(reader.num_kept(), 3u);
  reader.Take();
  EXPECT_EQ(reader.Feed({}), RequestReader::State::kHead);
  EXPECT_EQ(reader.Feed(std::string(" / HTTP/1.1\r\n") + kHost + "\r\n"),
            RequestReader::State::kDone);
  EXPECT_EQ(reader.num_kept(), 0u);
}

// Without the refusal: a mistake may be seen sooner or later, but is never read as a request.
std::string Requests(const std::string& read) { return read.substr(0, read.rfind('\n') + 1); }

TEST(RequestReader, DamagedBytesReadTheSameHoweverTheyAreCut) {
  const std::string seed =
      "POST /d HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
      "POST /b HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhelloGET / HTTP/1.0\r\n\r\n";
  std::mt19937 random(3);
  constexpr std::string_view kBytes("\r\n: \t0a;,\"\0\xff", 12);
  for (int round = 0; round < 3000; ++round) {
    std::string bytes = seed;
    for (size_t k = 0; k <= random() % 3; ++k) {
      const size_t at = random() % bytes.size();
      switch (random() % 3) {
        case 0:
          bytes.erase(at, 1 + random() % 4);
          break;
        case 1:
          bytes[at] = kBytes[random() % kBytes.size()];
          break;
        default:
          bytes.insert(at, 1, kBytes[random() % kBytes.size()]);
          break;
      }
    }
    std::vector<size_t> cuts;
    for (size_t at = random() % 20; at < bytes.size(); at += 1 + random() % 40) cuts.push_back(at);
    EXPECT_EQ(Requests(Read(bytes, cuts)), Requests(Read(bytes))) << bytes;
  }
}

}  // namespace
}  // namespace moebius::net
