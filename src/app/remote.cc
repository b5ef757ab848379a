#include "app/remote.h"

#include <condition_variable>
#include <cstdio>
#include <mutex>
#include <nlohmann/json.hpp>
#include <stop_token>
#include <utility>

#include "app/numbers.h"
#include "app/session.h"
#include "app/standard_output.h"
#include "bench/load/answer_reader.h"
#include "bench/load/sse.h"

namespace moebius::app {
namespace {

using nlohmann::json;
using Clock = std::chrono::steady_clock;

json ToJson(const frontend::SamplingFields& sampling) {
  json body = json::object();
  const auto add = [&body](const char* name, const auto& field) {
    if (field) body[name] = *field;
  };
  add("max_tokens", sampling.max_tokens);
  add("min_tokens", sampling.min_tokens);
  add("temperature", sampling.temperature);
  add("top_k", sampling.top_k);
  add("top_p", sampling.top_p);
  add("min_p", sampling.min_p);
  add("repetition_penalty", sampling.repetition_penalty);
  add("presence_penalty", sampling.presence_penalty);
  add("frequency_penalty", sampling.frequency_penalty);
  if (sampling.seed) body["seed"] = static_cast<int64_t>(*sampling.seed);
  add("stop", sampling.stop);
  add("stop_token_ids", sampling.stop_token_ids);
  add("ignore_eos", sampling.ignore_eos);
  add("include_stop_str_in_output", sampling.include_stop_str_in_output);
  add("skip_special_tokens", sampling.skip_special_tokens);
  body["stream"] = true;
  body["stream_options"] = {{"include_usage", true}};
  return body;
}

// Text that is not UTF-8 is the server's to judge, not the JSON writer's.
std::string Dump(const json& body) {
  return body.dump(-1, ' ', false, json::error_handler_t::replace);
}

std::string TextOf(const json& object, const char* key) {
  const auto found = object.find(key);
  return found != object.end() && found->is_string() ? found->get<std::string>() : "";
}

int64_t CountOf(const json& object, const char* key) {
  const auto found = object.find(key);
  return found != object.end() && found->is_number_integer() ? found->get<int64_t>() : 0;
}

// What one exchange brings, handed from the client's thread to the main one.
struct Arrivals {
  std::mutex mutex;
  std::condition_variable news;
  std::string bytes;
  int status = 0;
  std::optional<Clock::time_point> last;
  std::optional<Status> end;
};

// Reads events as they come and prints what they say.
class StreamPrinter {
 public:
  StreamPrinter(RemoteAnswer& answer, Clock::time_point sent) : answer_(answer), sent_(sent) {}

  Status Push(std::string_view bytes, Clock::time_point arrival) {
    Status status;
    const bool taken = sse_.Push(bytes, [&](std::string_view data) {
      if (status) status = OnEvent(data, arrival);
    });
    if (status && !taken) {
      return MakeError(ErrorCode::kCorrupt, "an event of the stream is too long");
    }
    return status;
  }

  void End() {
    if (last_ != '\n') std::fputc('\n', stdout);
    FlushStandardOutput();
  }

  bool done() const { return done_; }

 private:
  Status OnEvent(std::string_view data, Clock::time_point arrival) {
    if (data == "[DONE]") {
      done_ = true;
      return {};
    }
    const json event = json::parse(data.begin(), data.end(), nullptr, false);
    if (!event.is_object()) {
      return MakeError(ErrorCode::kCorrupt, "an event of the stream is no JSON object");
    }
    if (event.contains("error")) {
      return MakeError(ErrorCode::kInternal, "{}", load::ErrorMessageOf(data));
    }
    if (const auto usage = event.find("usage"); usage != event.end() && usage->is_object()) {
      answer_.num_prompt_tokens = CountOf(*usage, "prompt_tokens");
      answer_.num_tokens = CountOf(*usage, "completion_tokens");
      const auto details = usage->find("prompt_tokens_details");
      if (details != usage->end() && details->is_object())
        answer_.num_cached_tokens = CountOf(*details, "cached_tokens");
    }
    const auto choices = event.find("choices");
    if (choices == event.end() || !choices->is_array() || choices->empty()) return {};
    const json& choice = choices->front();
    if (!choice.is_object()) return {};
    if (const std::string finish = TextOf(choice, "finish_reason"); !finish.empty())
      answer_.finish = finish;
    const auto delta = choice.find("delta");
    if (delta == choice.end() || !delta->is_object()) {
      Say(TextOf(choice, "text"), arrival, /*is_answer=*/true);
      return {};
    }
    std::string reasoning = TextOf(*delta, "reasoning_content");
    if (reasoning.empty()) reasoning = TextOf(*delta, "reasoning");
    Say(reasoning, arrival, /*is_answer=*/false);
    Say(TextOf(*delta, "content"), arrival, /*is_answer=*/true);
    return {};
  }

  void Say(const std::string& text, Clock::time_point arrival, bool is_answer) {
    if (text.empty()) return;
    if (!first_) first_ = arrival;
    answer_.first_seconds = std::chrono::duration<double>(*first_ - sent_).count();
    answer_.later_seconds = std::chrono::duration<double>(arrival - *first_).count();
    if (is_answer && thinks_) std::fputs(last_ == '\n' ? "\n" : "\n\n", stdout);
    thinks_ = !is_answer;
    if (is_answer) answer_.text += text;
    std::fwrite(text.data(), 1, text.size(), stdout);
    FlushStandardOutput();
    last_ = text.back();
  }

  RemoteAnswer& answer_;
  const Clock::time_point sent_;
  load::SseParser sse_;
  std::optional<Clock::time_point> first_;
  bool thinks_ = false;
  bool done_ = false;
  char last_ = '\n';
};

void PrintFigures(const RemoteAnswer& answer) {
  std::string line = Count(answer.num_prompt_tokens, "prompt token");
  if (answer.num_cached_tokens > 0) line += fmt::format(" ({} cached)", answer.num_cached_tokens);
  line += ", " + Count(answer.num_tokens, "token");
  if (answer.first_seconds > 0)
    line += fmt::format(", first after {:.1f} ms", answer.first_seconds * 1e3);
  if (answer.num_tokens > 1 && answer.later_seconds > 0) {
    line += fmt::format(", then {:.1f} tokens/s",
                        static_cast<double>(answer.num_tokens - 1) / answer.later_seconds);
  }
  fmt::print(stderr, "[{}, finish: {}]\n", line, answer.finish.empty() ? "none" : answer.finish);
}

}  // namespace

Result<RemoteServer> RemoteServer::Connect(const RemoteOptions& options, const std::string& model) {
  net::HttpClientOptions client_options;
  client_options.base_url = options.url;
  std::string& url = client_options.base_url;
  while (!url.empty() && url.back() == '/') url.pop_back();
  if (url.size() > 3 && url.compare(url.size() - 3, 3, "/v1") == 0) url.resize(url.size() - 3);
  if (url.find("://") == std::string::npos) url = "http://" + url;
  auto client = net::HttpClient::Create(client_options);
  if (!client) return tl::unexpected(client.error().WithContext("--url"));
  RemoteServer server(std::move(*client), options.api_key);
  server.model_ = model;
  if (!model.empty()) return server;

  const Result<net::HttpResponse> response = server.client_->Fetch(server.Request("/v1/models"));
  if (!response) return tl::unexpected(response.error().WithContext(options.url));
  if (response->status != 200) {
    return MakeError(ErrorCode::kUnavailable, "{}: /v1/models answers {}: {}", options.url,
                     response->status, load::ErrorMessageOf(response->body));
  }
  const json models = json::parse(response->body, nullptr, false);
  const auto data = models.is_object() ? models.find("data") : models.end();
  if (!models.is_object() || data == models.end() || !data->is_array() || data->empty() ||
      !data->front().is_object() || TextOf(data->front(), "id").empty()) {
    return MakeError(ErrorCode::kCorrupt, "{}: /v1/models lists no model", options.url);
  }
  server.model_ = TextOf(data->front(), "id");
  return server;
}

net::HttpRequest RemoteServer::Request(const std::string& path) const {
  net::HttpRequest request;
  request.target = path;
  if (!api_key_.empty()) request.headers.push_back({"Authorization", "Bearer " + api_key_});
  return request;
}

Result<RemoteAnswer> RemoteServer::Chat(const std::vector<text::ChatMessage>& messages,
                                        const frontend::SamplingFields& sampling,
                                        Interrupt& interrupt) {
  json body = ToJson(sampling);
  body["model"] = model_;
  for (const text::ChatMessage& message : messages) {
    body["messages"].push_back({{"role", message.role}, {"content", message.content}});
  }
  return Ask("/v1/chat/completions", Dump(body), interrupt);
}

Result<RemoteAnswer> RemoteServer::Complete(const std::optional<std::string>& prompt,
                                            const std::vector<TokenId>& prompt_ids,
                                            const frontend::SamplingFields& sampling,
                                            Interrupt& interrupt) {
  json body = ToJson(sampling);
  body["model"] = model_;
  body["prompt"] = prompt ? json(*prompt) : json(prompt_ids);
  return Ask("/v1/completions", Dump(body), interrupt);
}

Result<RemoteAnswer> RemoteServer::Ask(const std::string& path, std::string body,
                                       Interrupt& interrupt) {
  net::HttpRequest request = Request(path);
  request.method = "POST";
  request.headers.push_back({"Content-Type", "application/json"});
  request.headers.push_back({"Accept", "text/event-stream"});
  request.body = std::move(body);

  const auto arrivals = std::make_shared<Arrivals>();
  net::HttpCallbacks callbacks;
  callbacks.on_head = [arrivals](int status, const std::vector<net::HttpHeader>&) {
    const std::lock_guard lock(arrivals->mutex);
    arrivals->status = status;
  };
  callbacks.on_data = [arrivals](std::string_view bytes, Clock::time_point arrival) {
    const std::lock_guard lock(arrivals->mutex);
    arrivals->bytes += bytes;
    arrivals->last = arrival;
    arrivals->news.notify_one();
  };
  callbacks.on_end = [arrivals](Status status) {
    const std::lock_guard lock(arrivals->mutex);
    arrivals->end = std::move(status);
    arrivals->news.notify_one();
  };

  RemoteAnswer answer;
  StreamPrinter printer(answer, Clock::now());
  const int64_t handle = client_->Start(std::move(request), std::move(callbacks));
  const std::stop_token stop = interrupt.Begin();
  Status said;
  std::string error_body;
  {
    const std::stop_callback cancel(stop, [this, handle] { client_->Cancel(handle); });
    std::unique_lock lock(arrivals->mutex);
    while (!arrivals->end || !arrivals->bytes.empty()) {
      arrivals->news.wait(lock, [&] { return arrivals->end || !arrivals->bytes.empty(); });
      const std::string bytes = std::exchange(arrivals->bytes, {});
      const Clock::time_point arrival = arrivals->last.value_or(Clock::now());
      const bool is_stream = arrivals->status == 200;
      lock.unlock();
      if (!is_stream) error_body += bytes;
      if (is_stream && said) {
        said = printer.Push(bytes, arrival);
        if (!said) client_->Cancel(handle);
      }
      lock.lock();
    }
  }
  interrupt.End();
  printer.End();
  if (stop.stop_requested()) answer.finish = "abort";
  if (arrivals->status != 0 && arrivals->status != 200) {
    return MakeError(ErrorCode::kUnavailable, "the server answers {}: {}", arrivals->status,
                     load::ErrorMessageOf(error_body));
  }
  MOEBIUS_TRY(said);
  if (answer.finish != "abort") {
    MOEBIUS_TRY(*arrivals->end);
    if (!printer.done()) {
      return MakeError(ErrorCode::kUnavailable, "the answer broke off: its [DONE] is missing");
    }
  }
  PrintFigures(answer);
  return answer;
}

}  // namespace moebius::app
