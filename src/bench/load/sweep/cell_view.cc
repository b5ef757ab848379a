#include <fmt/format.h>

#include <algorithm>

#include "bench/load/sweep/runner.h"

namespace moebius::load {

const char* CellStateName(CellState state) {
  switch (state) {
    case CellState::kDone:
      return "done";
    case CellState::kFailed:
      return "failed";
    case CellState::kToRun:
      return "to run";
    case CellState::kCannotYet:
      break;
  }
  return "cannot yet";
}

std::vector<CellView> ViewCells(const SweepPlan& plan, const std::vector<SweepRow>& rows,
                                const std::string& only, bool fresh) {
  const std::vector<SweepRow> known = RowsOfPlan(plan, rows);
  std::vector<CellView> views;
  for (Cell& cell : CellsOf(plan)) {
    if (cell.name.find(only) == std::string::npos) continue;
    const auto row = std::ranges::find(known, cell.name, &SweepRow::cell);
    CellView view;
    const std::string& of_server = plan.servers[cell.server].not_yet;
    view.reason = of_server.empty() ? plan.loads[cell.load].not_yet : of_server;
    view.is_planned = !view.reason.empty();
    if (view.is_planned) {
      view.state = CellState::kCannotYet;
    } else if (row != known.end() && row->status == CellStatus::kOk) {
      view.state = fresh ? CellState::kToRun : CellState::kDone;
    } else if (row != known.end()) {
      view.state = row->status == CellStatus::kFailed ? CellState::kFailed : CellState::kCannotYet;
      view.reason = row->reason;
    }
    view.cell = std::move(cell);
    views.push_back(std::move(view));
  }
  return views;
}

std::string CountCells(const std::vector<CellView>& cells) {
  const auto done = std::ranges::count(cells, CellState::kDone, &CellView::state);
  const auto planned = std::ranges::count(cells, true, &CellView::is_planned);
  const auto to_run = static_cast<std::ptrdiff_t>(cells.size()) - done - planned;
  return fmt::format("{} done, {} to run{}", done, to_run,
                     planned == 0 ? "" : fmt::format(", {} cannot yet", planned));
}

}  // namespace moebius::load
