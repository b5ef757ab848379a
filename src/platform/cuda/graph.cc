#include "platform/cuda/graph.h"

#include <cuda_runtime_api.h>

#include <utility>

#include "platform/cuda/device.h"

namespace moebius::platform::cuda {

Result<Graph> Graph::Capture(const Stream& stream, const std::function<Status()>& work) {
  MOEBIUS_TRY(ToStatus(cudaStreamBeginCapture(stream.get(), cudaStreamCaptureModeThreadLocal),
                       "beginning a capture"));
  const Status done = work();
  cudaGraph_t graph = nullptr;
  const cudaError_t ended = cudaStreamEndCapture(stream.get(), &graph);
  if (!done || ended != cudaSuccess) {
    if (graph != nullptr) cudaGraphDestroy(graph);
    cudaGetLastError();
    MOEBIUS_TRY(done);
    MOEBIUS_TRY(ToStatus(ended, "ending a capture"));
  }
  cudaGraphExec_t exec = nullptr;
  const cudaError_t error = cudaGraphInstantiate(&exec, graph, 0);
  cudaGraphDestroy(graph);
  MOEBIUS_TRY(ToStatus(error, "instantiating a graph"));
  return Graph(exec);
}

Graph::Graph(Graph&& other) noexcept : exec_(std::exchange(other.exec_, nullptr)) {}

Graph& Graph::operator=(Graph&& other) noexcept {
  std::swap(exec_, other.exec_);
  return *this;
}

Graph::~Graph() {
  if (exec_ != nullptr) cudaGraphExecDestroy(exec_);
}

Status Graph::Launch(const Stream& stream) const {
  return ToStatus(cudaGraphLaunch(exec_, stream.get()), "launching a graph");
}

}  // namespace moebius::platform::cuda
