// https, by the client against a TLS server with a certificate that it made itself.
#include "net/tls_stream.h"

#include <gtest/gtest.h>
#include <netinet/in.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>
#include <thread>
#include <utility>

#include "net/http_client.h"
#include "net/testing/sources.h"
#include "net/testing/test_server.h"

namespace moebius::net {
namespace {

// A TLS server with a certificate of its own for "localhost". Blocking; answers every request of a
// connection with the same bytes.
class TlsServer {
 public:
  explicit TlsServer(std::string answer) : answer_(std::move(answer)) {
    MakeCertificate();
    context_ = SSL_CTX_new(TLS_server_method());
    EXPECT_EQ(SSL_CTX_use_certificate(context_, certificate_), 1);
    EXPECT_EQ(SSL_CTX_use_PrivateKey(context_, key_), 1);
    fd_ = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    EXPECT_EQ(bind(fd_, reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0);
    EXPECT_EQ(listen(fd_, 16), 0);
    socklen_t size = sizeof(address);
    getsockname(fd_, reinterpret_cast<sockaddr*>(&address), &size);
    port_ = ntohs(address.sin_port);
    thread_ = std::thread([this] {
      // A client that leaves is an error code here, no signal.
      sigset_t pipe;
      sigemptyset(&pipe);
      sigaddset(&pipe, SIGPIPE);
      pthread_sigmask(SIG_BLOCK, &pipe, nullptr);
      while (Await(fd_)) Serve(accept(fd_, nullptr, nullptr));
    });
  }
  ~TlsServer() {
    stop_ = true;
    thread_.join();
    close(fd_);
    SSL_CTX_free(context_);
    X509_free(certificate_);
    EVP_PKEY_free(key_);
  }
  TlsServer(const TlsServer&) = delete;
  TlsServer& operator=(const TlsServer&) = delete;

  int port() const { return port_; }
  int num_connections() const { return num_connections_; }

  void WriteCertificate(const std::string& path) const {
    FILE* file = std::fopen(path.c_str(), "w");
    ASSERT_NE(file, nullptr);
    PEM_write_X509(file, certificate_);
    std::fclose(file);
  }

 private:
  void MakeCertificate() {
    key_ = EVP_PKEY_Q_keygen(nullptr, nullptr, "EC", "P-256");
    certificate_ = X509_new();
    X509_set_version(certificate_, 2);
    ASN1_INTEGER_set(X509_get_serialNumber(certificate_), 1);
    X509_gmtime_adj(X509_getm_notBefore(certificate_), -3600);
    X509_gmtime_adj(X509_getm_notAfter(certificate_), 3600);
    X509_set_pubkey(certificate_, key_);
    X509_NAME* name = X509_get_subject_name(certificate_);
    const auto* text = reinterpret_cast<const unsigned char*>("localhost");
    X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC, text, -1, -1, 0);
    X509_set_issuer_name(certificate_, name);
    X509_EXTENSION* names =
        X509V3_EXT_conf_nid(nullptr, nullptr, NID_subject_alt_name, "DNS:localhost");
    X509_add_ext(certificate_, names, -1);
    X509_EXTENSION_free(names);
    EXPECT_GT(X509_sign(certificate_, key_, EVP_sha256()), 0);
  }

  bool Await(int fd) const {
    pollfd wait{fd, POLLIN, 0};
    while (!stop_) {
      if (poll(&wait, 1, 20) > 0) return true;
    }
    return false;
  }

  void Serve(int fd) {
    ++num_connections_;
    SSL* ssl = SSL_new(context_);
    SSL_set_fd(ssl, fd);
    if (SSL_accept(ssl) == 1) {
      std::string head;
      char byte = 0;
      while ((SSL_pending(ssl) > 0 || Await(fd)) && SSL_read(ssl, &byte, 1) == 1) {
        head.push_back(byte);
        if (!head.ends_with("\r\n\r\n")) continue;
        head.clear();
        if (SSL_write(ssl, answer_.data(), static_cast<int>(answer_.size())) <= 0) break;
      }
    }
    SSL_free(ssl);
    close(fd);
  }

  const std::string answer_;
  X509* certificate_ = nullptr;
  EVP_PKEY* key_ = nullptr;
  SSL_CTX* context_ = nullptr;
  int fd_ = -1;
  int port_ = 0;
  std::atomic<bool> stop_{false};
  std::atomic<int> num_connections_{0};
  std::thread thread_;
};

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
