#include "serve/metrics.h"

namespace moebius::embedded {
extern const std::string_view index_html;  // made by the build from page/index.html
}

namespace moebius::serve {

std::string_view PageHtml() { return embedded::index_html; }

}  // namespace moebius::serve
