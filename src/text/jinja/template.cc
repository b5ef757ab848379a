#include "text/jinja/template.h"

#include <utility>

#include "text/jinja/parser.h"

namespace moebius::text::jinja {

Result<std::shared_ptr<const Template>> Template::Parse(std::string source) {
  // Cannot be make_shared: the constructor is private.
  std::shared_ptr<Template> parsed(new Template());
  MOEBIUS_ASSIGN(parsed->parsed_, jinja::Parse(source));
  parsed->source_ = std::move(source);
  return std::shared_ptr<const Template>(std::move(parsed));
}

Result<std::string> Template::Render(const Dict& variables, const RenderOptions& options) const {
  return Interpreter(parsed_, options).Render(variables);
}

}  // namespace moebius::text::jinja
