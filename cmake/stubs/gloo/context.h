#pragma once
// Stand-in for Gloo's header, which the torch wheel leaves out although it exports the symbols.
// Only smart pointers to these types occur in ProcessGroupGloo, so its layout is unaffected.
#include <chrono>
#include <memory>
namespace gloo {
namespace transport {
class Pair;
}  // namespace transport
class Context {
 public:
  // The connection to rank `i`; null for the rank itself. The vector behind it never changes after construction.
  std::unique_ptr<transport::Pair>& getPair(int i);
  void setTimeout(std::chrono::milliseconds timeout);
  std::chrono::milliseconds getTimeout() const;
};
}  // namespace gloo
