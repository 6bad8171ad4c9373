#include "tests/fuzz/server_calls.h"

#include <google/protobuf/message.h>
#include <grpcpp/client_context.h>
#include <grpcpp/completion_queue.h>
#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/support/byte_buffer.h>
#include <openssl/crypto.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "common/log/log.h"
#include "common/rpc/channel.h"
#include "tests/fuzz/fuzz.h"

namespace sluice::fuzz {
namespace {

using google::protobuf::MethodDescriptor;

constexpr absl::Duration kDeadline = absl::Milliseconds(20);
constexpr int kMaxAnswers = 64;

// What is sent for `bytes`. readable: whether they are a message of this method.
std::string Prepare(const MethodDescriptor* method, absl::string_view bytes, const std::string& job, bool* readable) {
  const google::protobuf::Message* prototype =
      google::protobuf::MessageFactory::generated_factory()->GetPrototype(method->input_type());
  const std::unique_ptr<google::protobuf::Message> message(prototype->New());
  *readable = message->ParseFromArray(bytes.data(), static_cast<int>(bytes.size()));
  const google::protobuf::FieldDescriptor* field = method->input_type()->FindFieldByName("job_id");
  if (!*readable || field == nullptr || message->GetReflection()->GetString(*message, field) != "j") {
    return std::string(bytes);
  }
  message->GetReflection()->SetString(message.get(), field, job);
  return message->SerializeAsString();
}

// One call, step by step on a queue of its own. Its deadline ends every step.
grpc::Status Call(const MethodDescriptor* method, const std::vector<std::string>& messages,
                  const std::shared_ptr<grpc::Channel>& channel) {
  grpc::ClientContext context;
  SetDeadline(&context, kDeadline);
  grpc::CompletionQueue queue;
  const auto step_done = [&queue] {
    void* tag = nullptr;
    bool ok = false;
    return queue.Next(&tag, &ok) && ok;
  };
  grpc::GenericStub stub(channel);
  const auto stream =
      stub.PrepareCall(&context, absl::StrCat("/", method->service()->full_name(), "/", method->name()), &queue);
  stream->StartCall(nullptr);
  bool alive = step_done();
  for (const std::string& message : messages) {
    if (!alive) break;
    const grpc::Slice slice(message.data(), message.size());
    stream->Write(grpc::ByteBuffer(&slice, 1), nullptr);
    alive = step_done();
  }
  if (alive) {
    stream->WritesDone(nullptr);
    step_done();
  }
  grpc::ByteBuffer answer;
  for (int i = 0; i < kMaxAnswers; ++i) {
    stream->Read(&answer, nullptr);
    if (!step_done()) break;
    if (i + 1 == kMaxAnswers) context.TryCancel();
  }
  grpc::Status status;
  stream->Finish(&status, nullptr);
  step_done();
  queue.Shutdown();
  while (step_done()) {
  }
  return status;
}

}  // namespace

ServerCalls::ServerCalls(const std::vector<std::string>& services) {
  InitLogging("fuzz", LogFormat::kText, LogLevel::kError);
  // By this thread: what OpenSSL sets up in one of a server's threads counts as lost when that ends.
  OPENSSL_init_crypto(OPENSSL_INIT_LOAD_CONFIG, nullptr);
  for (const std::string& name : services) {
    const google::protobuf::ServiceDescriptor* service =
        google::protobuf::DescriptorPool::generated_pool()->FindServiceByName(name);
    Require(service != nullptr, "a service is not in the protocol");
    for (int i = 0; i < service->method_count(); ++i) methods_.push_back(service->method(i));
  }
}

void ServerCalls::Make(absl::string_view input, const std::string& job,
                       const std::shared_ptr<grpc::Channel>& channel) const {
  struct Part {
    const MethodDescriptor* method;
    absl::string_view message;
  };
  std::vector<Part> parts;
  while (input.size() >= 3 && parts.size() < kMaxMessages) {
    const auto byte = [&input](size_t i) { return static_cast<size_t>(static_cast<uint8_t>(input[i])); };
    const MethodDescriptor* method = methods_[byte(0) % methods_.size()];
    const size_t size = std::min(byte(1) | byte(2) << 8, input.size() - 3);
    parts.push_back({method, input.substr(3, size)});
    input.remove_prefix(3 + size);
  }
  for (size_t i = 0; i < parts.size();) {
    const MethodDescriptor* method = parts[i].method;
    std::vector<std::string> messages;
    bool all_readable = true;
    do {
      bool readable = false;
      messages.push_back(Prepare(method, parts[i].message, job, &readable));
      all_readable = all_readable && readable;
      ++i;
    } while (method->client_streaming() && i < parts.size() && parts[i].method == method);
    const grpc::Status status = Call(method, messages, channel);
    const bool broken =
        status.error_code() == grpc::StatusCode::UNKNOWN || status.error_code() == grpc::StatusCode::INTERNAL;
    if (broken && all_readable) {
      std::fprintf(stderr, "%s: %d %s\n", method->full_name().c_str(), static_cast<int>(status.error_code()),
                   status.error_message().c_str());
      Require(false, "a call was answered as no handler may");
    }
  }
}

}  // namespace sluice::fuzz
