// A server of OpenAI's API as run and chat see it with --url: one question at a time, its answer
// streamed to standard output. Used by the main thread.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "app/interrupt.h"
#include "app/options.h"
#include "base/result.h"
#include "net/http_client.h"
#include "text/chat_template.h"

namespace moebius::app {

struct RemoteAnswer {
  std::string text;    // without what the model thought before it
  std::string finish;  // "stop", "length", ...; "abort": it was interrupted
  int64_t num_prompt_tokens = 0;
  int64_t num_cached_tokens = 0;
  int64_t num_tokens = 0;
  double first_seconds = 0;  // from sending to the first piece
  double later_seconds = 0;  // from there to the last
};

class RemoteServer {
 public:
  // Asks for the first of its models unless one is named. Errors name the URL.
  static Result<RemoteServer> Connect(const RemoteOptions& options, const std::string& model);

  // Prints the answer as it comes, then a line of figures on standard error. `sampling`: what the
  // request says. Errors: no answer, one that broke off, or the server's own words.
  Result<RemoteAnswer> Chat(const std::vector<text::ChatMessage>& messages,
                            const frontend::SamplingFields& sampling, Interrupt& interrupt);
  // Continues a text, or token ids if there is none.
  Result<RemoteAnswer> Complete(const std::optional<std::string>& prompt,
                                const std::vector<TokenId>& prompt_ids,
                                const frontend::SamplingFields& sampling, Interrupt& interrupt);

 private:
  RemoteServer(std::unique_ptr<net::HttpClient> client, std::string api_key)
      : client_(std::move(client)), api_key_(std::move(api_key)) {}

  Result<RemoteAnswer> Ask(const std::string& path, std::string body, Interrupt& interrupt);
  net::HttpRequest Request(const std::string& path) const;

  std::unique_ptr<net::HttpClient> client_;
  std::string api_key_;
  std::string model_;
};

}  // namespace moebius::app
