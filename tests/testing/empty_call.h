// A call of any method by its path, for tests of what is there and who may.
#ifndef SLUICE_TESTS_TESTING_EMPTY_CALL_H_
#define SLUICE_TESTS_TESTING_EMPTY_CALL_H_

#include <grpcpp/channel.h>
#include <grpcpp/generic/generic_stub.h>

#include <future>
#include <memory>
#include <string>

#include "absl/time/time.h"
#include "common/rpc/channel.h"
#include "common/rpc/status.h"

namespace sluice {

// Sends one empty message to `path` ("/package.Service/Method") and returns how the call ended. Not for streams that go
// on without an end.
inline absl::Status CallWithNothing(const std::shared_ptr<grpc::Channel>& channel, const std::string& path) {
  grpc::GenericStub stub(channel);
  grpc::ClientContext context;
  SetDeadline(&context, absl::Seconds(30));
  const grpc::Slice nothing;
  const grpc::ByteBuffer request(&nothing, 1);
  grpc::ByteBuffer response;
  std::promise<grpc::Status> answered;
  stub.UnaryCall(&context, path, grpc::StubOptions(), &request, &response,
                 [&answered](const grpc::Status& status) { answered.set_value(status); });
  return FromGrpc(answered.get_future().get());
}

}  // namespace sluice

#endif  // SLUICE_TESTS_TESTING_EMPTY_CALL_H_
