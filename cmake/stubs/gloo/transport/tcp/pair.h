#pragma once
// See ../../context.h.
#include <exception>
#include <string>
namespace gloo::transport {
class Pair {
 public:
  virtual ~Pair();  // never called from here: only keeps unique_ptr<Pair> well-formed
};
namespace tcp {
class Pair {
 public:
  // Both take the pair's lock. The second fails whatever waits on the connection and closes it, as Gloo's own timeout
  // does.
  bool isConnected();
  std::exception_ptr signalExceptionExternal(const std::string& message);
};
}  // namespace tcp
}  // namespace gloo::transport
