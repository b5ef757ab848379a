#include "net/tls_stream.h"

#include <arpa/inet.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>

#include <algorithm>
#include <climits>
#include <utility>

namespace moebius::net {
namespace {

// OpenSSL's queue of errors, emptied.
std::string TakeErrors() {
  std::string text;
  while (const unsigned long code = ERR_get_error()) {  // NOLINT: OpenSSL's type
    char line[256];
    ERR_error_string_n(code, line, sizeof(line));
    text.append(text.empty() ? "" : "; ").append(line);
  }
  return text.empty() ? "the connection broke" : text;
}

class Context : public TlsContext {
 public:
  explicit Context(SSL_CTX* context) : context_(context) {}
  Context(const Context&) = delete;
  Context& operator=(const Context&) = delete;
  ~Context() override { SSL_CTX_free(context_); }
  SSL_CTX* get() const { return context_; }

 private:
  SSL_CTX* context_;
};

class Stream : public TlsStream {
 public:
  explicit Stream(SSL* ssl) : ssl_(ssl) {}
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;
  ~Stream() override { SSL_free(ssl_); }

  IoOutcome Handshake() override {
    ERR_clear_error();
    const int result = SSL_connect(ssl_);
    const long verified = SSL_get_verify_result(ssl_);  // NOLINT: OpenSSL's type
    const IoOutcome outcome = Outcome(result);
    if (outcome == IoOutcome::kEof) {
      error_ = "TLS: the server closed the connection in the handshake";
      return IoOutcome::kFailed;
    }
    if (outcome == IoOutcome::kFailed && verified != X509_V_OK) {
      error_ = std::string("TLS: the server's certificate is not accepted: ") +
               X509_verify_cert_error_string(verified);
    }
    return outcome;
  }

  IoOutcome Read(char* data, size_t size, size_t* num) override {
    ERR_clear_error();
    return Outcome(SSL_read_ex(ssl_, data, size, num));
  }

  IoOutcome Write(std::string_view bytes, size_t* num) override {
    ERR_clear_error();
    return Outcome(SSL_write_ex(ssl_, bytes.data(), bytes.size(), num));
  }

  const std::string& error() const override { return error_; }

 private:
  IoOutcome Outcome(int result) {
    switch (SSL_get_error(ssl_, result)) {
      case SSL_ERROR_NONE:
        return IoOutcome::kOk;
      case SSL_ERROR_WANT_READ:
        return IoOutcome::kWantRead;
      case SSL_ERROR_WANT_WRITE:
        return IoOutcome::kWantWrite;
      case SSL_ERROR_ZERO_RETURN:
        return IoOutcome::kEof;
      default:
        error_ = "TLS: " + TakeErrors();
        return IoOutcome::kFailed;
    }
  }

  SSL* ssl_;
  std::string error_;
};

}  // namespace

Result<std::unique_ptr<TlsContext>> TlsContext::Create(bool verify_peer) {
  SSL_CTX* raw = SSL_CTX_new(TLS_client_method());
  if (raw == nullptr) return MakeError(ErrorCode::kUnsupported, "TLS: {}", TakeErrors());
  auto context = std::make_unique<Context>(raw);
  SSL_CTX_set_min_proto_version(raw, TLS1_2_VERSION);
  // What was not taken at once may be offered again from another address, or more of it.
  SSL_CTX_set_mode(raw, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER |
                            SSL_MODE_RELEASE_BUFFERS);
  if (verify_peer) {
    SSL_CTX_set_verify(raw, SSL_VERIFY_PEER, nullptr);
    if (SSL_CTX_set_default_verify_paths(raw) != 1) {
      return MakeError(ErrorCode::kNotFound, "TLS: the system's certificates: {}", TakeErrors());
    }
  }
  return context;
}

std::unique_ptr<TlsStream> TlsStream::Create(TlsContext* context, int fd, const std::string& host) {
  SSL* ssl = SSL_new(static_cast<Context*>(context)->get());
  if (ssl == nullptr) return nullptr;
  auto stream = std::make_unique<Stream>(ssl);
  unsigned char address[16];
  if (inet_pton(AF_INET, host.c_str(), address) == 1 ||
      inet_pton(AF_INET6, host.c_str(), address) == 1) {
    X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(ssl), host.c_str());
  } else {
    SSL_set1_host(ssl, host.c_str());
    SSL_set_tlsext_host_name(ssl, host.c_str());
  }
  if (SSL_set_fd(ssl, fd) != 1) return nullptr;
  return stream;
}

}  // namespace moebius::net
