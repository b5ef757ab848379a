#include <chrono>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <optional>
#include <utility>

#include "net/http_client.h"
#include "net/http_writer.h"

namespace moebius::net {

Result<HttpResponse> HttpClient::Fetch(HttpRequest request) {
  struct Answer {
    std::mutex mutex;
    std::condition_variable ended;
    std::optional<Status> status;
    HttpResponse response;
  };
  const auto answer = std::make_shared<Answer>();
  HttpCallbacks callbacks;
  callbacks.on_head = [answer](int status, const std::vector<HttpHeader>& headers) {
    answer->response.status = status;
    answer->response.headers = headers;
    answer->response.content_type.clear();
    for (const HttpHeader& header : headers) {
      if (EqualsIgnoreCase(header.name, "Content-Type")) {
        answer->response.content_type = header.value;
      }
    }
  };
  callbacks.on_data = [answer](std::string_view bytes, std::chrono::steady_clock::time_point) {
    answer->response.body.append(bytes);
  };
  callbacks.on_end = [answer](Status status) {
    const std::lock_guard lock(answer->mutex);
    answer->status = std::move(status);
    answer->ended.notify_all();
  };
  Start(std::move(request), std::move(callbacks));
  std::unique_lock lock(answer->mutex);
  answer->ended.wait(lock, [&] { return answer->status.has_value(); });
  if (!*answer->status) return tl::unexpected<Error>(answer->status->error());
  return std::move(answer->response);
}

}  // namespace moebius::net
