// https, by the client against a TLS server with a certificate that it made itself.
#include "net/tls_stream.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>

#include "net/http_client.h"
#include "net/testing/sources.h"
#include "net/testing/test_server.h"
#include "net/testing/tls_server.h"

namespace moebius::net {
namespace {

std::unique_ptr<HttpClient> Connect(const std::string& host, int port, bool verify_peer) {
  HttpClientOptions options;
  options.base_url = "https://" + host + ":" + std::to_string(port);
  options.verify_peer = verify_peer;
  auto client = HttpClient::Create(options);
  EXPECT_TRUE(client.has_value()) << client.error().message();
  return std::move(*client);
}

std::string Answer(const std::string& body) {
  return "HTTP/1.1 200 OK\r\nContent-Length: " + std::to_string(body.size()) + "\r\n\r\n" + body;
}

TEST(TlsStream, CarriesAnswersAndKeepsItsConnection) {
  const std::string body = Pattern(5, 0, 3 << 20);
  TlsServer server(Answer(body));
  auto client = Connect("localhost", server.port(), false);
  for (int i = 0; i < 3; ++i) {
    const auto response = client->Fetch({});
    ASSERT_TRUE(response) << response.error().message();
    EXPECT_TRUE(response->body == body);
  }
  EXPECT_EQ(server.num_connections(), 1);
}

TEST(TlsStream, RefusesACertificateThatNobodyVouchesFor) {
  TlsServer server(Answer("x"));
  const auto response = Connect("localhost", server.port(), true)->Fetch({});
  ASSERT_FALSE(response);
  EXPECT_EQ(response.error().code(), ErrorCode::kUnavailable);
  EXPECT_NE(response.error().message().find("certificate is not accepted: self-signed"),
            std::string::npos)
      << response.error().message();
}

TEST(TlsStream, AcceptsWhatTheSystemVouchesForUnderItsNameOnly) {
  TlsServer server(Answer("x"));
  char path[] = "/tmp/moebius_tls_XXXXXX";
  const int fd = mkstemp(path);
  ASSERT_GE(fd, 0);
  close(fd);
  server.WriteCertificate(path);
  setenv("SSL_CERT_FILE", path, 1);
  const auto good = Connect("localhost", server.port(), true)->Fetch({});
  const auto wrong_name = Connect("127.0.0.1", server.port(), true)->Fetch({});
  unsetenv("SSL_CERT_FILE");
  std::remove(path);
  ASSERT_TRUE(good) << good.error().message();
  EXPECT_EQ(good->body, "x");
  ASSERT_FALSE(wrong_name);
  EXPECT_NE(wrong_name.error().message().find("IP address mismatch"), std::string::npos)
      << wrong_name.error().message();
}

TEST(TlsStream, AServerWithoutTlsIsAnError) {
  TestServer server;
  const auto response = Connect("127.0.0.1", server.port(), false)->Fetch({});
  ASSERT_FALSE(response);
  EXPECT_EQ(response.error().code(), ErrorCode::kUnavailable);
}

}  // namespace
}  // namespace moebius::net
