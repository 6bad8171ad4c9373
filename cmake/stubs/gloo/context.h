#pragma once
// Stand-in for Gloo's header, which the torch wheel leaves out although it exports the symbols.
// Only smart pointers to these types occur in ProcessGroupGloo, so its layout is unaffected.
#include <chrono>
namespace gloo {
class Context {
 public:
  void setTimeout(std::chrono::milliseconds timeout);
  std::chrono::milliseconds getTimeout() const;
};
}  // namespace gloo
