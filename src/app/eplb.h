// moebius eplb VERB: placements of experts from recorded loads. A verb is a class in a file of its
// own and a row of the table in eplb.cc. Used by the main thread.
#pragma once

#include <memory>
#include <span>

#include "app/interrupt.h"
#include "base/result.h"

namespace CLI {
class App;
}

namespace moebius::app {

class EplbVerb {
 public:
  virtual ~EplbVerb() = default;

  // Its flags, whose targets are its own members.
  virtual void AddFlags(CLI::App* app) = 0;
  // After the parse: what flags alone cannot say. An error is one of usage.
  virtual Status Check() = 0;
  // The exit code.
  virtual Result<int> Run(Interrupt& interrupt) = 0;
};

struct EplbEntry {
  const char* name;
  const char* help;
  std::unique_ptr<EplbVerb> (*make)();
};
std::span<const EplbEntry> EplbTable();

std::unique_ptr<EplbVerb> MakeEplbPlan();      // eplb_plan.cc
std::unique_ptr<EplbVerb> MakeEplbReport();    // eplb_report.cc
std::unique_ptr<EplbVerb> MakeEplbReplay();    // eplb_replay.cc
std::unique_ptr<EplbVerb> MakeEplbLocality();  // eplb_locality.cc
std::unique_ptr<EplbVerb> MakeEplbRecord();    // eplb_record.cc
std::unique_ptr<EplbVerb> MakeEplbClean();     // eplb_clean_verb.cc

}  // namespace moebius::app
