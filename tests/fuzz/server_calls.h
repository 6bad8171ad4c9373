// Calls of a server inside the process, made of bytes: what any client that reaches its port may do to it.
#ifndef SLUICE_TESTS_FUZZ_SERVER_CALLS_H_
#define SLUICE_TESTS_FUZZ_SERVER_CALLS_H_

#include <google/protobuf/descriptor.h>
#include <grpcpp/channel.h>

#include <memory>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"

namespace sluice::fuzz {

// An input is a list of messages: a byte that chooses the method, two that say its length (little-endian), the message.
// Neighbours of one method that takes a stream are the messages of one call. Ends the process, as a sanitizer would, if
// a call is answered as no handler may answer: by a crash (UNAVAILABLE), or by UNKNOWN or INTERNAL to what is a
// message.
class ServerCalls {
 public:
  // To be made before the first server; quiets the log. services: full names, such as "sluice.v1.JobService". Methods
  // count through them in the order of their declaration.
  explicit ServerCalls(const std::vector<std::string>& services);

  // At most kMaxMessages; what comes after them is left out. job: what a message's "job_id" means by "j", as no input
  // can know the id of a job that the server named.
  void Make(absl::string_view input, const std::string& job, const std::shared_ptr<grpc::Channel>& channel) const;

 private:
  static constexpr int kMaxMessages = 24;

  std::vector<const google::protobuf::MethodDescriptor*> methods_;
};

}  // namespace sluice::fuzz

#endif  // SLUICE_TESTS_FUZZ_SERVER_CALLS_H_
