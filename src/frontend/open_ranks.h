// Several ranks behind one EngineClient: which layouts of a model run on this machine, and their
// start. For open.h; called once, from the main thread.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "base/result.h"
#include "engine/engine_client.h"
#include "frontend/open.h"
#include "model/load.h"
#include "model/model_config.h"

namespace moebius::frontend {

// Before weights are read. kInvalidArgument, beginning with the layout's flags: a rule of
// layout/rules.h forbids it for this model (every reason, and the nearest layout that is legal), or
// it is legal and does not run here.
Status CheckRanks(const OpenOptions& options, const model::ModelConfig& config);

// What the balancer makes of the experts: the slots of each layer and what they hold at the start;
// nothing where nothing is balanced. kInvalidArgument or kUnsupported names the field.
Result<moe::SlotAssignment> AssignSlots(const OpenOptions& options,
                                        const model::ModelConfig& config);

// Whether --routing is one that these ranks can have: a part of CheckRanks, and of one rank's dry
// run. kInvalidArgument names it.
Status CheckRouting(const OpenOptions& options, const model::ModelConfig& config);

// Whether the kernels of GPUs take the model's router and vocabulary. kInvalidArgument begins with
// the field of config.json, or the flag, that asks for more.
Status CheckDeviceModel(const OpenOptions& options, const model::ModelConfig& config);

// The part of CheckRanks that is of GPUs, of which there are so many. kInvalidArgument begins with
// the flag and its value.
Status CheckDeviceRanks(const OpenOptions& options, const model::ModelConfig& config,
                        int num_devices);

// --threads, or a fair share of the cpus that this process may use, at least 1.
Result<int> ThreadsOfRank(const OpenOptions& options);

// "8 ranks (DP8+EP), each with 1 thread; tokens travel by all2all, ...". Of more than one rank.
std::string DescribeRanks(const OpenOptions& options, const model::ModelConfig& config);

// "experts: 40 slots for 32 experts on 8 ranks, ...": what balancing does. Empty where nothing is
// balanced.
std::string DescribeBalance(const OpenOptions& options, const model::ModelConfig& config);

// Lines that say where each rank's threads and memory are bound; each rank reads back whether they
// are, and does not start elsewhere.
std::vector<std::string> DescribeBinding(const OpenOptions& options);

// load.backend is set. An error names the rank that had it.
Result<std::unique_ptr<engine::EngineClient>> StartRanks(const OpenOptions& options,
                                                         const model::LoadOptions& load);

}  // namespace moebius::frontend
