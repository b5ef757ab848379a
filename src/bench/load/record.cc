#include "bench/load/record.h"

namespace moebius::load {

const char* OutcomeName(Outcome outcome) {
  switch (outcome) {
    case Outcome::kOk:
      return "ok";
    case Outcome::kRateLimited:
      return "rate_limited";
    case Outcome::kClientError:
      return "client_error";
    case Outcome::kServerError:
      return "server_error";
    case Outcome::kTimeout:
      return "timeout";
    case Outcome::kBroken:
      return "broken";
    case Outcome::kStreamError:
      return "stream_error";
    case Outcome::kEmpty:
      return "empty";
    case Outcome::kCancelled:
      return "cancelled";
  }
  return "?";
}

}  // namespace moebius::load
