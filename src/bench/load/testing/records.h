// Records as a test writes them: a request that is served evenly.
#pragma once

#include "bench/load/record.h"

namespace moebius::load {

// Sent at `sent`, its first of `n` tokens after `ttft`, the others `gap` apart.
inline RequestRecord Served(double sent, double ttft, double gap, int n) {
  RequestRecord record;
  record.scheduled = record.released = record.sent = sent;
  for (int i = 0; i < n; ++i) record.events.push_back({sent + ttft + gap * i, 1});
  record.end = record.events.back().time;
  record.prompt_tokens = 10;
  record.cached_tokens = 0;
  record.output_tokens = n;
  record.has_usage = true;
  record.status = 200;
  return record;
}

}  // namespace moebius::load
