#include "serve/routes.h"

#include <gtest/gtest.h>

namespace moebius::serve {
namespace {

TEST(Routes, EveryRouteFindsItself) {
  for (const Route& route : Routes()) {
    std::string path(route.path);
    if (path.ends_with("{id}")) path.replace(path.size() - 4, 4, "a%2Fb/c");
    for (const std::string& spelled : {path, path + "/"}) {
      const RouteMatch match = FindRoute(route.method, spelled);
      ASSERT_EQ(match.route, &route) << spelled;
      EXPECT_EQ(match.argument, route.path.ends_with("{id}") ? "a/b/c" : "");
    }
  }
}

TEST(Routes, OthersSayWhatWouldBe) {
  EXPECT_EQ(FindRoute("GET", "/v1/completions").allow, "POST");
  EXPECT_EQ(FindRoute("PUT", "/ping").allow, "GET, HEAD, POST");
  EXPECT_EQ(FindRoute("HEAD", "/health").route, FindRoute("GET", "/health").route);
  for (const char* path : {"", "/v1", "/v1/modelsx", "/healthy", "//health", "/health/dead"}) {
    const RouteMatch match = FindRoute("GET", path);
    EXPECT_EQ(match.route, nullptr) << path;
    EXPECT_EQ(match.allow, "") << path;
  }
}

TEST(Routes, AnUnknownPathIsAnsweredInOneLine) {
  EXPECT_EQ(NoRouteMessage("/v1/completion"),
            "there is no /v1/completion here (did you mean /v1/completions?); this server has "
            "/v1/chat/completions, /v1/completions, /v1/models, /tokenize, /detokenize, "
            "/tokenizer_info, /version, /load, /health, /ping, /metrics, /moebius/stats, "
            "/eplb/counts, /");
  EXPECT_NE(NoRouteMessage("/v1/embeddings").find("embeddings here; this"), std::string::npos);
}

TEST(Routes, PercentDecodeLeavesWhatIsNoEscape) {
  EXPECT_EQ(PercentDecode("a%20b%2fc%2F"), "a b/c/");
  EXPECT_EQ(PercentDecode("%"), "%");
  EXPECT_EQ(PercentDecode("%4"), "%4");
  EXPECT_EQ(PercentDecode("%zz%41"), "%zzA");
}

}  // namespace
}  // namespace moebius::serve
