// What comes over the wire: the first byte chooses the message, the rest is its bytes. Everything a peer may send goes
// through the conversions and checks that stand before the ledger, the job store, the sampler and the store of weight
// groups.
#include "actor/rpc/rollout_convert.h"
#include "common/rpc/rendezvous.h"
#include "common/spec/spec.h"
#include "common/sync/epoch_kv_store.h"
#include "learner/ledger/check_result.h"
#include "learner/rpc/job_messages.h"
#include "learner/rpc/rollout_convert.h"
#include "tests/fuzz/fuzz.h"

namespace sluice {
namespace {

void CheckResult(const v1::Result& message) {
  const auto result = learner::FromProto(message);
  if (!result.ok()) return;
  learner::HubJob job;
  job.catalog_version = "catalog";
  job.levels = 3;
  job.find_leaf = [](absl::Span<const int32_t> tokens) { return tokens.empty() ? -1 : tokens[0] % 5; };
  job.options.group_size = 4;
  Prompt prompt;
  prompt.history = {1, 2};
  prompt.target = 3;
  if (const auto* group = std::get_if<ScoredGroup>(&result->outcome)) {
    const absl::Status status = learner::CheckGroup(*group, prompt, job);
    if (status.ok()) fuzz::Require(group->completions.size() <= 4, "a group of too many completions was taken");
  }
  if (const auto* decoded = std::get_if<DecodedPrompt>(&result->outcome)) {
    (void)learner::CheckDecoded(*decoded, 4, 4, job);
  }
}

// Calls of one kind, in a row, to a store that has room for few.
template <typename Request, typename Response>
void CallStore(const Request& request,
               grpc::Status (RendezvousService::*call)(grpc::ServerContext*, const Request*, Response*)) {
  constexpr size_t kMaxKeys = 2;
  EpochKvStore store({.max_keys = kMaxKeys, .max_bytes = 1024, .max_value_bytes = 256, .max_waiters = 1});
  RendezvousService service(&store);
  Response response;
  (void)(service.*call)(nullptr, &request, &response);
  (void)(service.*call)(nullptr, &request, &response);
  store.ForgetBefore(8);
  fuzz::Require(!(service.*call)(nullptr, &request, &response).ok() || request.key().substr(0, 8) != "epoch/7/",
                "a key of an epoch that is over was taken");
  fuzz::Require(store.size() <= kMaxKeys, "the store holds more keys than it may");
}

template <typename Message, typename Use>
void Try(absl::string_view bytes, const Use& use) {
  Message message;
  if (message.ParseFromArray(bytes.data(), static_cast<int>(bytes.size()))) use(message);
}

}  // namespace
}  // namespace sluice

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace sluice;  // NOLINT(google-build-using-namespace): a file of one function
  if (size == 0) return 0;
  const absl::string_view bytes = fuzz::Text(data + 1, size - 1);
  switch (data[0] % 7) {
    case 0:
      Try<v1::Result>(bytes, CheckResult);
      break;
    case 1:
      Try<v1::Lease>(bytes, [](const v1::Lease& lease) { (void)actor::FromProto(lease, absl::UnixEpoch()); });
      break;
    case 2:
      Try<v1::Welcome>(bytes, [](const v1::Welcome& welcome) { (void)actor::FromProto(welcome); });
      break;
    case 3:
      Try<v1::JobReport>(bytes, [](const v1::JobReport& report) { (void)learner::FromMessage(report); });
      break;
    case 5:
      Try<v1::RendezvousSetRequest>(bytes, [](const auto& set) { CallStore(set, &RendezvousService::Set); });
      break;
    case 6:
      Try<v1::RendezvousAddRequest>(bytes, [](const auto& add) { CallStore(add, &RendezvousService::Add); });
      break;
    default:
      Try<v1::JobSpec>(bytes, [](const v1::JobSpec& spec) { (void)CompleteSpec(spec); });
  }
  return 0;
}
