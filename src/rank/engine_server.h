// A leader's side of the connection that a RemoteEngine has the other end of: does there what comes
// in frames, and sends what the engine says.
#pragma once

#include <chrono>
#include <memory>

#include "base/result.h"
#include "engine/engine_client.h"
#include "rank/frame_socket.h"

namespace moebius::rank {

constexpr auto kStatsPeriod = std::chrono::milliseconds(100);

// Serves on the calling thread until the other side says Stop (OK) or is gone (why); then the
// engine is destroyed, its requests ended as cancelled, and all has been given to `socket`.
Status ServeEngine(FrameSocket& socket, std::unique_ptr<engine::EngineClient> engine);

}  // namespace moebius::rank
