// Where a thread may run, and where the memory lies that it is the first to touch: set, and read
// back. Threads inherit both from the one that starts them. Linux's affinity and memory policy stay
// inside binding.cc.
#pragma once

#include <pthread.h>

#include <string>
#include <vector>

#include "base/result.h"

namespace moebius::platform {

// The cpus that a thread may run on, ascending.
std::vector<int> CpusOfThread(pthread_t thread);

// Only there from now on. kUnavailable: the system refuses, or has made something else of it; the
// message says for `who` what was asked for and what holds.
Status BindThread(pthread_t thread, const std::vector<int>& cpus, const std::string& who);

// The calling thread's memory comes from these NUMA nodes, and from no other. A refusal (a
// container often refuses it) is a warning, and false; kUnavailable where the system took it and
// then says something else.
Result<bool> BindMemory(const std::vector<int>& nodes, const std::string& who);

// Whether the system lets this process bind memory to the node; tried on a page of its own, which
// changes nothing else. kUnavailable says what it answers.
Status ProbeMemoryBinding(int node);

// The nodes that the calling thread's memory is bound to; empty: none in particular.
std::vector<int> MemoryNodesOfThread();

// kUnavailable: "rank 3: runs on cpus 0-1, planned were 2-3".
Status CheckBinding(const char* what, const std::vector<int>& found,
                    const std::vector<int>& planned, const std::string& who);

}  // namespace moebius::platform
