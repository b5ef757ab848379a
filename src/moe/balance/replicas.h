// Which experts get more than one slot. Pure; any thread.
#pragma once

#include <climits>
#include <cstdint>
#include <span>
#include <vector>

namespace moebius::moe {

// Who comes first among experts of equal load / copies.
enum class ShareTie : uint8_t { kLowestExpert, kHighestExpert, kFewestCopies };

// With one copy each to begin with: the experts that get the further copies, in the order in which
// they get them. It is always the one with the most load a copy, which makes the heaviest share as
// small as so many copies can. An expert of max_copies is passed over while others have fewer.
std::vector<int32_t> ExtraCopies(std::span<const double> load, int num_extra, ShareTie tie,
                                 int max_copies = INT_MAX);

}  // namespace moebius::moe
