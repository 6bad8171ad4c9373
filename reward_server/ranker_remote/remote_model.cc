#include "reward_server/ranker_remote/remote_model.h"

#include <algorithm>
#include <utility>

#include "absl/memory/memory.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/time/clock.h"
#include "common/file/file.h"
#include "common/rpc/channel.h"
#include "common/rpc/status.h"
#include "common/status/status.h"
#include "reward_server/ranker_remote/inference_wire.h"

namespace sluice::reward {
namespace {

// Of one call that asks for something small.
constexpr absl::Duration kSmallCall = absl::Seconds(5);

// A message that is too large comes with the code of a full queue, but no later try is smaller.
absl::Status WithoutVainRetries(const absl::Status& status) {
  if (status.code() == absl::StatusCode::kResourceExhausted && absl::StrContains(status.message(), "larger than max")) {
    return absl::OutOfRangeError(absl::StrCat(status.message(), "; give the mapping a smaller max_pairs"));
  }
  return status;
}

absl::Status Said(const grpc::Status& status, const std::string& doing) {
  const absl::Status came = FromServer(status);
  return WithoutVainRetries(absl::Status(came.code(), absl::StrCat(doing, ": ", Quoted(status.error_message()))));
}

}  // namespace

RemoteModel::RemoteModel(const RankerMapping& mapping, const RemoteModelTools& tools)
    : mapping_(mapping),
      tools_(tools),
      stub_(::inference::GRPCInferenceService::NewStub(MakeChannel(mapping.remote.address))) {}

absl::StatusOr<std::unique_ptr<RemoteModel>> RemoteModel::Connect(const QueryEncoder& encoder,
                                                                  const RemoteModelTools& tools) {
  const RankerMapping& mapping = encoder.mapping();
  SLUICE_RETURN_IF_ERROR(
      CheckAddress(absl::StrCat(mapping.source, ": open_inference.address"), mapping.remote.address));
  auto model = absl::WrapUnique(new RemoteModel(mapping, tools));
  SLUICE_RETURN_IF_ERROR(model->WaitUntilReady());
  SLUICE_ASSIGN_OR_RETURN(const ::inference::ModelMetadataResponse metadata, model->Metadata());
  SLUICE_RETURN_IF_ERROR(encoder.CheckPromises(Promises(metadata.inputs()), Promises(metadata.outputs())));

  // A version that is named stays the same when the server gets a newer one beside it.
  model->model_version_ = mapping.remote.version;
  if (model->model_version_.empty() && metadata.versions_size() == 1) model->model_version_ = metadata.versions(0);
  model->name_version_ = !model->model_version_.empty();

  const std::vector<ItemQuery> probe = {
      {.user = encoder.dataset().num_users() > 0 ? 0 : -1, .history = {0}, .items = {0}}};
  std::vector<absl::Status> statuses;
  const std::vector<ModelCall> calls = encoder.Plan(probe, &statuses);
  SLUICE_RETURN_IF_ERROR(statuses[0]);
  SLUICE_ASSIGN_OR_RETURN(
      const ::inference::ModelInferResponse answer,
      model->Infer(InferRequest(mapping, encoder.Encode(probe, calls[0])), tools.now() + mapping.remote.deadline));
  if (!model->name_version_) model->model_version_ = answer.model_version();
  SLUICE_RETURN_IF_ERROR(CheckAnswerer(mapping, model->model_version_, answer));
  model->version_ = Sha256(absl::StrCat("open inference ", mapping.remote.model, " ", model->model_version_));
  return model;
}

absl::Status RemoteModel::Retry(absl::Time deadline, const WaitFunction& wait,
                                const std::function<absl::Status(absl::Duration)>& call) const {
  RetryOptions options;
  options.initial_backoff = absl::Milliseconds(20);
  options.max_backoff = absl::Seconds(1);
  options.total_timeout = std::max(deadline - tools_.now(), absl::ZeroDuration());
  options.attempt_timeout = options.total_timeout;
  Random random(DeriveSeed(tools_.seed, {requests_.load()}));
  const WaitFunction sleep = [](absl::Duration time) {
    absl::SleepFor(time);
    return true;
  };
  return CallWithRetry(options, tools_.now, wait ? wait : sleep, &random, call);
}

absl::Status RemoteModel::IsReady(absl::Duration timeout) const {
  grpc::ClientContext server_context, model_context;
  SetDeadline(&server_context, std::min(timeout, kSmallCall));
  SetDeadline(&model_context, std::min(timeout, kSmallCall));
  const std::string where = absl::StrCat("the server at ", mapping_.remote.address);
  ::inference::ServerReadyResponse server;
  if (const auto status = stub_->ServerReady(&server_context, {}, &server); !status.ok()) {
    return Said(status, absl::StrCat(where, " was asked whether it is ready"));
  }
  if (!server.ready()) return absl::UnavailableError(absl::StrCat(where, " is not ready"));
  ::inference::ModelReadyRequest request;
  request.set_name(mapping_.remote.model);
  request.set_version(mapping_.remote.version);
  ::inference::ModelReadyResponse answer;
  if (const auto status = stub_->ModelReady(&model_context, request, &answer); !status.ok()) {
    return Said(status, absl::StrCat(where, " was asked whether model '", mapping_.remote.model, "' is ready"));
  }
  if (!answer.ready()) {
    return absl::UnavailableError(absl::StrCat(where, " has model '", mapping_.remote.model, "', but it is not ready"));
  }
  return absl::OkStatus();
}

absl::Status RemoteModel::WaitUntilReady() const {
  // At least one question, also with a time of zero.
  const absl::Time deadline = tools_.now() + std::max(mapping_.remote.start, absl::Seconds(1));
  const absl::Status status =
      Retry(deadline, tools_.start_wait, [&](absl::Duration timeout) { return IsReady(timeout); });
  return Annotate(status, absl::StrCat(mapping_.source, ": open_inference"));
}

absl::StatusOr<::inference::ModelMetadataResponse> RemoteModel::Metadata() const {
  ::inference::ModelMetadataRequest request;
  request.set_name(mapping_.remote.model);
  request.set_version(mapping_.remote.version);
  ::inference::ModelMetadataResponse answer;
  const absl::Status status = Retry(tools_.now() + kSmallCall, tools_.wait, [&](absl::Duration timeout) {
    grpc::ClientContext context;
    SetDeadline(&context, timeout);
    return Said(stub_->ModelMetadata(&context, request, &answer), "the metadata of the model was asked for");
  });
  SLUICE_RETURN_IF_ERROR(Annotate(status, absl::StrCat(mapping_.source, ": open_inference")));
  if (answer.name() != mapping_.remote.model) {
    return absl::FailedPreconditionError(absl::StrCat(mapping_.source, ": open_inference.model: asked for '",
                                                      mapping_.remote.model, "', the server described '",
                                                      Quoted(answer.name()), "'"));
  }
  const std::string& version = mapping_.remote.version;
  if (!version.empty() && answer.versions_size() > 0 &&
      std::find(answer.versions().begin(), answer.versions().end(), version) == answer.versions().end()) {
    return absl::NotFoundError(absl::StrCat(mapping_.source, ": open_inference.version: there is no '", version,
                                            "', the server has ", Quoted(absl::StrJoin(answer.versions(), ", "))));
  }
  return answer;
}

bool RemoteModel::Enter(absl::Time deadline) const {
  MutexLock lock(&mutex_);
  while (running_ >= mapping_.remote.calls) {
    const absl::Duration left = deadline - tools_.now();
    if (left <= absl::ZeroDuration()) return false;
    left_.WaitFor(&mutex_, left);
  }
  ++running_;
  return true;
}

void RemoteModel::Leave() const {
  MutexLock lock(&mutex_);
  --running_;
  left_.NotifyOne();
}

absl::StatusOr<::inference::ModelInferResponse> RemoteModel::Infer(::inference::ModelInferRequest request,
                                                                   absl::Time deadline) const {
  const std::string doing =
      absl::StrCat("ranker ", mapping_.name, ": model '", mapping_.remote.model, "' at ", mapping_.remote.address);
  if (name_version_) request.set_model_version(model_version_);
  request.set_id(absl::StrCat(requests_.fetch_add(1)));
  if (!Enter(deadline)) {
    return absl::DeadlineExceededError(absl::StrCat(doing, ": all ", mapping_.remote.calls,
                                                    " calls were taken until the ",
                                                    "deadline; raise open_inference.calls or deadline_s"));
  }
  ::inference::ModelInferResponse answer;
  const absl::Status status = Retry(deadline, tools_.wait, [&](absl::Duration timeout) {
    grpc::ClientContext context;
    SetDeadline(&context, timeout);
    answer.Clear();
    return Said(stub_->ModelInfer(&context, request, &answer), doing);
  });
  Leave();
  SLUICE_RETURN_IF_ERROR(status);
  // A server need not give the id back, but what it gives back must be it.
  if (!answer.id().empty() && answer.id() != request.id()) {
    return absl::DataLossError(
        absl::StrCat(doing, ": the answer is to request '", Quoted(answer.id()), "', want '", request.id(), "'"));
  }
  return answer;
}

absl::StatusOr<std::vector<Tensor>> RemoteModel::Run(std::vector<Tensor> inputs, absl::Time deadline) const {
  SLUICE_ASSIGN_OR_RETURN(::inference::ModelInferResponse answer,
                          Infer(InferRequest(mapping_, std::move(inputs)), deadline));
  SLUICE_RETURN_IF_ERROR(CheckAnswerer(mapping_, model_version_, answer));
  return AnsweredTensors(std::move(answer));
}

}  // namespace sluice::reward
