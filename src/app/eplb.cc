#include "app/eplb.h"

namespace moebius::app {
namespace {

constexpr EplbEntry kEplbTable[] = {
    {"plan", "A placement of experts on slots, from recorded loads", MakeEplbPlan},
    {"report", "How evenly recorded loads fall on experts and ranks", MakeEplbReport},
    {"replay", "What each policy would have done to a sequence of loads", MakeEplbReplay},
    {"locality", "How far tokens travel, by the rule that chooses among copies", MakeEplbLocality},
    {"record", "Loads of experts from a running server, into a folder", MakeEplbRecord},
    {"clean", "Host pools that a crash left in shared memory", MakeEplbClean},
};

}  // namespace

std::span<const EplbEntry> EplbTable() { return kEplbTable; }

}  // namespace moebius::app
