#include "serve/reply.h"

#include <utility>

#include "base/log.h"

namespace moebius::serve {

Reply::Reply(std::shared_ptr<net::Exchange> exchange, StatsRecorder* stats, const Route* route,
             std::string request_id, std::vector<net::HttpHeader> headers)
    : exchange_(std::move(exchange)),
      stats_(stats),
      route_(route),
      request_id_(std::move(request_id)),
      headers_(std::move(headers)) {}

Reply::~Reply() { SendError({503, "the server is shutting down", "", "", 1}); }

void Reply::Send(net::HttpResponse response) {
  if (is_answered_.exchange(true)) return;
  Count(response.status);
  response.headers.insert(response.headers.end(), headers_.begin(), headers_.end());
  exchange_->Respond(std::move(response));
}

void Reply::SendJson(std::string body, int status) {
  net::HttpResponse response;
  response.status = status;
  response.body = std::move(body);
  Send(std::move(response));
}

void Reply::SendError(const ApiError& error) {
  if (!is_answered_) Send(ErrorResponse(error));
}

bool Reply::Stream(std::unique_ptr<net::BodySource> source) {
  if (is_answered_.exchange(true)) return false;
  net::HttpResponse head;
  head.content_type = "text/event-stream; charset=utf-8";
  head.headers = headers_;
  head.headers.push_back({"Cache-Control", "no-cache"});
  head.headers.push_back({"X-Accel-Buffering", "no"});  // proxies pass events on as they come
  exchange_->Stream(std::move(head), std::move(source));
  return true;
}

void Reply::EndStream() { Count(200); }

void Reply::SetGone() {
  if (!is_answered_.exchange(true)) Count(kClientGone);
}

void Reply::Count(int status) {
  if (is_counted_.exchange(true)) return;
  const double seconds = std::chrono::duration<double>(Clock::now() - arrival_).count();
  stats_->OnAnswer(route_, status, seconds);
  if (!stats_->log_requests() || route_ == nullptr || route_->is_open) return;
  LogInfo("{} {} {}: {} after {:.3f} s", request_id_, route_->method, route_->path, status,
          seconds);
}

net::HttpResponse ErrorResponse(const ApiError& error) {
  net::HttpResponse response;
  response.status = error.status;
  response.body = ErrorBody(error);
  if (error.retry_after_s) {
    response.headers.push_back({"Retry-After", std::to_string(*error.retry_after_s)});
  }
  return response;
}

}  // namespace moebius::serve
