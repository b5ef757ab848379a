// moebius eplb clean: its flags.
#include <fmt/core.h>

#include <CLI/CLI.hpp>
#include <cstdio>

#include "app/commands.h"
#include "app/eplb.h"
#include "app/eplb_clean.h"
#include "app/flag_kinds.h"

namespace moebius::app {
namespace {

class EplbClean : public EplbVerb {
 public:
  void AddFlags(CLI::App* app) override {
    AddText(app, "--name", options_.name,
            "Base of the segments' names (MOEBIUS_EPLB_SHM_NAME, else moe_shared)")
        ->option_text("BASE");
    AddFlag(app, "--all", "Those of every base", [this](bool on) { options_.all = on; });
    AddFlag(app, "--dry-run", "Only list them", [this](bool on) { options_.dry_run = on; });
  }
  Status Check() override { return {}; }
  Result<int> Run(Interrupt& /*interrupt*/) override {
    MOEBIUS_TRY(RunEplbClean(stdout, options_));
    return kExitOk;
  }

 private:
  EplbCleanOptions options_;
};

}  // namespace

std::unique_ptr<EplbVerb> MakeEplbClean() { return std::make_unique<EplbClean>(); }

}  // namespace moebius::app
