#include "client/cli/job_client.h"

#include <random>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/time/clock.h"
#include "common/random/random.h"
#include "common/rpc/channel.h"
#include "common/rpc/status.h"
#include "common/status/status.h"
#include "common/sync/notification.h"
#include "common/sync/thread.h"
#include "common/time/clock.h"
#include "common/time/retry.h"

namespace sluice::client {
namespace {

// A stream lasts at most so long and is then taken up again, so that none hangs for ever on a dead path.
constexpr absl::Duration kStreamLimit = absl::Minutes(30);
constexpr int kResolved = 1000;

bool Begins(const std::string& id, const std::string& abbreviation) {
  if (absl::StartsWith(id, abbreviation)) return true;
  const size_t dash = id.rfind('-');
  return dash != std::string::npos && absl::StartsWith(id.substr(dash + 1), abbreviation);
}

}  // namespace

JobClient::JobClient(std::shared_ptr<grpc::Channel> channel, JobClientOptions options)
    : options_(std::move(options)), channel_(std::move(channel)), stub_(v1::JobService::NewStub(channel_)) {}

absl::Status JobClient::Call(const std::function<absl::Status(grpc::ClientContext*)>& call) {
  RetryOptions retry;
  retry.attempt_timeout = options_.timeout;
  retry.total_timeout = options_.timeout;
  Random random(std::random_device{}());
  const auto wait = [](absl::Duration duration) {
    absl::SleepFor(duration);
    return true;
  };
  // Nobody there is said at once: a person waits. What may pass by itself is retried.
  absl::Status refused = absl::OkStatus();
  const absl::Status status = CallWithRetry(retry, MonotonicClock(), wait, &random, [&](absl::Duration timeout) {
    grpc::ClientContext context;
    SetDeadline(&context, timeout);
    absl::Status result = call(&context);
    if (result.code() == absl::StatusCode::kUnavailable && absl::StrContains(result.message(), "refused")) {
      refused = result;
      return absl::OkStatus();
    }
    return options_.explain ? options_.explain(result) : result;  // what TLS is wrong with is not retried
  });
  if (status.code() == absl::StatusCode::kUnimplemented) {
    return absl::FailedPreconditionError(absl::StrCat("what answers at ", options_.server, " is no coordinator (",
                                                      status.message(),
                                                      "); name the coordinator with --server or SLUICE_SERVER"));
  }
  if (refused.ok() && status.code() != absl::StatusCode::kUnavailable &&
      status.code() != absl::StatusCode::kDeadlineExceeded) {
    return status;
  }
  return absl::UnavailableError(
      absl::StrCat("no coordinator answers at ", options_.server,
                   "; start one with 'sluice-learner coordinator', or name another with --server or SLUICE_SERVER"));
}

absl::StatusOr<v1::SubmitResponse> JobClient::Submit(const v1::SubmitRequest& request) {
  v1::SubmitResponse response;
  SLUICE_RETURN_IF_ERROR(
      Call([&](grpc::ClientContext* context) { return FromServer(stub_->Submit(context, request, &response)); }));
  return response;
}

absl::StatusOr<v1::ListResponse> JobClient::List(int limit) {
  v1::ListRequest request;
  request.set_limit(limit);
  v1::ListResponse response;
  SLUICE_RETURN_IF_ERROR(
      Call([&](grpc::ClientContext* context) { return FromServer(stub_->List(context, request, &response)); }));
  return response;
}

absl::StatusOr<v1::DescribeResponse> JobClient::Describe(const std::string& job_id) {
  v1::DescribeRequest request;
  request.set_job_id(job_id);
  v1::DescribeResponse response;
  SLUICE_RETURN_IF_ERROR(
      Call([&](grpc::ClientContext* context) { return FromServer(stub_->Describe(context, request, &response)); }));
  return response;
}

absl::Status JobClient::Cancel(const std::string& job_id) {
  v1::CancelRequest request;
  request.set_job_id(job_id);
  v1::CancelResponse response;
  return Call([&](grpc::ClientContext* context) { return FromServer(stub_->Cancel(context, request, &response)); });
}

absl::StatusOr<v1::ResumeResponse> JobClient::Resume(const std::string& job_id) {
  v1::ResumeRequest request;
  request.set_job_id(job_id);
  v1::ResumeResponse response;
  SLUICE_RETURN_IF_ERROR(
      Call([&](grpc::ClientContext* context) { return FromServer(stub_->Resume(context, request, &response)); }));
  return response;
}

absl::StatusOr<std::string> JobClient::ResolveId(const std::string& abbreviation) {
  SLUICE_ASSIGN_OR_RETURN(const v1::ListResponse listed, List(kResolved));
  std::vector<std::string> found;
  for (const v1::JobSummary& job : listed.jobs()) {
    if (job.job_id() == abbreviation) return abbreviation;
    if (!abbreviation.empty() && Begins(job.job_id(), abbreviation)) found.push_back(job.job_id());
  }
  if (found.size() == 1) return found.front();
  if (!found.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat("'", abbreviation, "' may be ", absl::StrJoin(found, ", "), "; give more of the id"));
  }
  // Beyond what is listed only a full id can be known.
  if (listed.jobs_size() == kResolved) return abbreviation;
  return absl::NotFoundError(absl::StrCat("there is no job '", abbreviation, "'; 'sluicectl list' shows them"));
}

absl::Status JobClient::WatchOnce(const v1::WatchRequest& request, const std::atomic<bool>& stop,
                                  const OnEvent& on_event) {
  grpc::ClientContext context;
  SetDeadline(&context, kStreamLimit);
  Notification ended;
  Thread stopper = StartThread("watch-stop", [&] {
    while (!ended.WaitFor(absl::Milliseconds(50))) {
      if (stop) return context.TryCancel();
    }
  });
  const auto reader = stub_->Watch(&context, request);
  v1::JobEvent event;
  while (reader->Read(&event)) on_event(event);
  const absl::Status status = FromServer(reader->Finish());
  ended.Notify();
  stopper.Join();
  return status;
}

absl::Status JobClient::Watch(const std::string& job_id, const WatchOptions& options, const std::atomic<bool>& stop,
                              const OnEvent& on_event, const OnContact& on_contact) {
  uint64_t sequence = options.after;
  absl::Time last_contact = MonotonicNow();
  bool lost = false;
  RetryOptions retry;
  retry.max_backoff = absl::Seconds(2);
  Random random(std::random_device{}());
  for (int failures = 0;;) {
    v1::WatchRequest request;
    request.set_job_id(job_id);
    request.set_after_sequence(sequence);
    request.set_until_now(options.until_now);
    const absl::Status status = WatchOnce(request, stop, [&](const v1::JobEvent& event) {
      if (lost) on_contact(absl::OkStatus());
      lost = false;
      failures = 0;
      last_contact = MonotonicNow();
      sequence = event.sequence();
      on_event(event);
    });
    if (stop) return absl::CancelledError("detached");
    if (sequence == options.after && options_.explain) {  // later it was there, and certificates may be mended
      if (const absl::Status why = options_.explain(status); absl::IsPermissionDenied(why)) return why;
    }
    if (status.ok() || !IsRetryable(status)) return status;
    if (status.code() == absl::StatusCode::kDeadlineExceeded) {
      last_contact = MonotonicNow();  // the stream's own limit, not a fault
      continue;
    }
    if (MonotonicNow() - last_contact > options_.watch_patience) {
      return absl::UnavailableError(
          absl::StrCat("no coordinator answers at ", options_.server, " since ",
                       absl::FormatDuration(absl::Trunc(MonotonicNow() - last_contact, absl::Seconds(1))),
                       "; watch again with --after ", sequence));
    }
    if (!lost) on_contact(status);
    lost = true;
    grpc::experimental::ChannelResetConnectionBackoff(channel_.get());
    const absl::Time next = MonotonicNow() + BackoffDelay(retry, ++failures, random.Uniform());
    while (!stop && MonotonicNow() < next) absl::SleepFor(absl::Milliseconds(50));
  }
}

}  // namespace sluice::client
