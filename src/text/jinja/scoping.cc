#include "text/jinja/scoping.h"

#include <algorithm>
#include <array>
#include <unordered_map>
#include <utility>

namespace moebius::text::jinja {
namespace {

// Where a scope's variable gets its first value.
enum class Origin : uint8_t {
  kHidden,   // nowhere: assigned first
  kOutside,  // a scope around, or the caller
  kInside,   // a loop's target, a macro's parameter
};

// The names that one scope mentions. Every change is logged, so that the branches of an if can be
// looked at one by one.
class ScopeNames {
 public:
  explicit ScopeNames(const ScopeNames* parent) : parent_(parent) {}

  bool Mentions(NameId name) const {
    return origins_.count(name) != 0 || (parent_ != nullptr && parent_->Mentions(name));
  }
  void Read(NameId name) {
    if (!Mentions(name)) SetOrigin(name, Origin::kOutside);
  }
  void Assign(NameId name) {
    SetAssigned(name);
    if (origins_.count(name) != 0) return;
    SetOrigin(name,
              parent_ != nullptr && parent_->Mentions(name) ? Origin::kOutside : Origin::kHidden);
  }
  void Declare(NameId name) {
    SetAssigned(name);
    SetOrigin(name, Origin::kInside);
  }

  // What a branch added.
  struct Branch {
    std::vector<std::pair<NameId, Origin>> origins;
    std::vector<NameId> assigned;
  };
  template <typename Visit>
  Branch Try(Visit visit) {
    const size_t origin_mark = origin_log_.size();
    const size_t assigned_mark = assigned_log_.size();
    visit();
    Branch branch;
    for (size_t i = origin_mark; i < origin_log_.size(); ++i) {
      branch.origins.emplace_back(origin_log_[i].first, origins_.at(origin_log_[i].first));
    }
    while (origin_log_.size() > origin_mark) {
      const auto& [name, before] = origin_log_.back();
      if (before) {
        origins_[name] = *before;
      } else {
        origins_.erase(name);
      }
      origin_log_.pop_back();
    }
    branch.assigned.assign(assigned_log_.begin() + static_cast<int64_t>(assigned_mark),
                           assigned_log_.end());
    for (NameId name : branch.assigned) assigned_.erase(name);
    assigned_log_.resize(assigned_mark);
    return branch;
  }
  // Joins the branches of an if: what they assign keeps its value from outside until then.
  void Merge(const std::array<Branch, 3>& branches) {
    for (const Branch& branch : branches) {
      for (const auto& [name, origin] : branch.origins) SetOrigin(name, origin);
    }
    for (const Branch& branch : branches) {
      for (NameId name : branch.assigned) {
        SetAssigned(name);
        SetOrigin(name, Origin::kOutside);
      }
    }
  }

  std::vector<NameId> Hidden() const {
    std::vector<NameId> hidden;
    for (const auto& [name, origin] : origins_) {
      if (origin == Origin::kHidden) hidden.push_back(name);
    }
    std::sort(hidden.begin(), hidden.end());
    return hidden;
  }

 private:
  void SetOrigin(NameId name, Origin origin) {
    const auto found = origins_.find(name);
    origin_log_.emplace_back(
        name, found == origins_.end() ? std::nullopt : std::optional<Origin>(found->second));
    origins_[name] = origin;
  }
  void SetAssigned(NameId name) {
    if (assigned_.emplace(name, true).second) assigned_log_.push_back(name);
  }

  const ScopeNames* parent_;
  std::unordered_map<NameId, Origin> origins_;
  std::unordered_map<NameId, bool> assigned_;
  std::vector<std::pair<NameId, std::optional<Origin>>> origin_log_;
  std::vector<NameId> assigned_log_;
};

void VisitExpr(const Expr& expr, ScopeNames& names);

void VisitAll(const std::vector<ExprPtr>& exprs, ScopeNames& names) {
  for (const ExprPtr& expr : exprs) {
    if (expr) VisitExpr(*expr, names);
  }
}

void VisitExpr(const Expr& expr, ScopeNames& names) {
  if (expr.kind == ExprKind::kName) names.Read(expr.name);
  VisitAll(expr.operands, names);
  VisitAll(expr.arguments.positional, names);
  for (const auto& [name, value] : expr.arguments.keywords) VisitExpr(*value, names);
  if (expr.arguments.rest) VisitExpr(*expr.arguments.rest, names);
  if (expr.arguments.rest_keywords) VisitExpr(*expr.arguments.rest_keywords, names);
}

void VisitTarget(const Target& target, ScopeNames& names, bool declares) {
  for (const Target& element : target.elements) VisitTarget(element, names, declares);
  if (target.is_tuple) return;
  if (!target.attribute.empty()) {
    names.Read(target.name);
  } else if (declares) {
    names.Declare(target.name);
  } else {
    names.Assign(target.name);
  }
}

// The mentions of a scope's own statements; scopes within are looked at by Descend, once this one
// is known whole.
void VisitBody(const Body& body, ScopeNames& names);

void VisitIf(const Stmt& stmt, size_t branch_idx, ScopeNames& names) {
  const auto& branch = stmt.branches[branch_idx];
  VisitExpr(*branch.first, names);
  // As in jinja2's tree, every elif is an if of its own among the branches of the first.
  names.Merge({names.Try([&] { VisitBody(branch.second, names); }), names.Try([&] {
                 for (size_t i = 1; branch_idx == 0 && i < stmt.branches.size(); ++i)
                   VisitIf(stmt, i, names);
               }),
               names.Try([&] {
                 if (branch_idx == 0) VisitBody(stmt.orelse, names);
               })});
}

void VisitStmt(const Stmt& stmt, ScopeNames& names) {
  switch (stmt.kind) {
    case StmtKind::kIf:
      VisitIf(stmt, 0, names);
      break;
    case StmtKind::kMacro:
      names.Assign(stmt.name);
      break;
    case StmtKind::kSetBlock:
      VisitTarget(stmt.target, names, false);
      break;
    case StmtKind::kWith:
      for (const auto& [target, value] : stmt.bindings) VisitExpr(*value, names);
      break;
    default:
      if (stmt.expr) VisitExpr(*stmt.expr, names);
      if (stmt.kind == StmtKind::kSet) VisitTarget(stmt.target, names, false);
  }
}

void VisitBody(const Body& body, ScopeNames& names) {
  for (const StmtPtr& stmt : body) VisitStmt(*stmt, names);
}

void Descend(Body& body, const ScopeNames& names);

// The scope of `body`; `declare` adds what it begins with.
template <typename Declare>
std::vector<NameId> ResolveScope(Body& body, const ScopeNames* parent, Declare declare) {
  ScopeNames names(parent);
  declare(names);
  VisitBody(body, names);
  Descend(body, names);
  return names.Hidden();
}

void DescendInto(Stmt& stmt, const ScopeNames& names) {
  switch (stmt.kind) {
    case StmtKind::kIf:
      for (auto& [test, body] : stmt.branches) Descend(body, names);
      Descend(stmt.orelse, names);
      break;
    case StmtKind::kFor:
      stmt.hidden = ResolveScope(stmt.body, &names,
                                 [&](ScopeNames& inner) { VisitTarget(stmt.target, inner, true); });
      stmt.orelse_hidden = ResolveScope(stmt.orelse, &names, [](ScopeNames&) {});
      break;
    case StmtKind::kMacro:
    case StmtKind::kCall:
    case StmtKind::kScope:
      stmt.hidden = ResolveScope(stmt.body, &names, [&](ScopeNames& inner) {
        for (NameId parameter : stmt.signature.parameters) inner.Declare(parameter);
        VisitAll(stmt.signature.defaults, inner);
      });
      break;
    case StmtKind::kWith:
      stmt.hidden = ResolveScope(stmt.body, &names, [&](ScopeNames& inner) {
        for (const auto& [target, value] : stmt.bindings) VisitTarget(target, inner, true);
      });
      break;
    case StmtKind::kSetBlock:
    case StmtKind::kFilter:
      stmt.hidden = ResolveScope(stmt.body, &names, [](ScopeNames&) {});
      break;
    default:
      break;
  }
}

void Descend(Body& body, const ScopeNames& names) {
  for (const StmtPtr& stmt : body) DescendInto(*stmt, names);
}

}  // namespace

void ResolveScopes(ParsedTemplate& parsed) {
  parsed.hidden = ResolveScope(parsed.body, nullptr, [](ScopeNames&) {});
}

}  // namespace moebius::text::jinja
