#include "client/cli/job_client.h"

#include <algorithm>
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
#include "common/version/version.h"

namespace sluice::client {
namespace {

// A stream lasts at most so long and is then taken up again, so that none hangs for ever on a dead path.
constexpr absl::Duration kStreamLimit = absl::Minutes(30);
constexpr int kResolved = 1000;
// For calls whose server reads files or computes; --timeout is of the others.
constexpr absl::Duration kSlowCall = absl::Minutes(5);

bool Begins(const std::string& id, const std::string& abbreviation) {
  if (absl::StartsWith(id, abbreviation)) return true;
  const size_t dash = id.rfind('-');
  return dash != std::string::npos && absl::StartsWith(id.substr(dash + 1), abbreviation);
}

// Another protocol than gRPC's.
bool IsOtherProtocol(const absl::Status& status) {
  return absl::StrContains(status.message(), "Failed parsing HTTP/2") ||
         absl::StrContains(status.message(), "Trying to connect an http1.x server");
}

}  // namespace

JobClient::JobClient(std::shared_ptr<grpc::Channel> channel, JobClientOptions options)
    : options_(std::move(options)),
      channel_(std::move(channel)),
      stub_(v1::JobService::NewStub(channel_)),
      data_(v1::DataService::NewStub(channel_)) {}

absl::Status JobClient::Call(const std::function<absl::Status(grpc::ClientContext*)>& call, const char* what,
                             absl::Duration patience) {
  RetryOptions retry;
  retry.attempt_timeout = patience > absl::ZeroDuration() ? patience : options_.timeout;
  retry.total_timeout = retry.attempt_timeout;
  Random random(std::random_device{}());
  const auto wait = [](absl::Duration duration) {
    absl::SleepFor(duration);
    return true;
  };
  // What will not pass by itself is said at once: a person waits. Nobody is there, that is, and not: nobody any more,
  // since a call that was cut off by a restart goes on after it. The last error counts: what CallWithRetry returns has
  // the number of attempts in its words.
  absl::Status last = absl::OkStatus();
  bool cut_off = false;
  const absl::Status status = CallWithRetry(retry, MonotonicClock(), wait, &random, [&](absl::Duration timeout) {
    grpc::ClientContext context;
    SetDeadline(&context, timeout);
    last = call(&context);
    if (options_.explain) last = options_.explain(last);  // what TLS is wrong with is not retried
    const bool away = last.code() == absl::StatusCode::kUnavailable &&
                      (absl::StrContains(last.message(), "refused") || absl::StrContains(last.message(), "esol"));
    const bool nobody = away && !cut_off;
    cut_off = cut_off || !away;
    // Who calls too often is told to come again soon; a quota stays full.
    const bool full = last.code() == absl::StatusCode::kResourceExhausted &&
                      context.GetServerTrailingMetadata().count("retry_after_ms") == 0;
    return nobody || full || IsOtherProtocol(last) ? absl::OkStatus() : last;
  });
  if (status.ok() && last.ok()) return status;
  return Explain(last, what, retry.total_timeout);
}

absl::Status JobClient::Explain(const absl::Status& status, const char* what, absl::Duration patience) {
  const std::string& server = options_.server;
  constexpr char kName[] = "; name the coordinator with --server, SLUICE_SERVER or a context";
  if (IsOtherProtocol(status)) {
    return absl::FailedPreconditionError(
        absl::StrCat("what answers at ", server, " is no coordinator (", status.message(), ")", kName));
  }
  switch (status.code()) {
    case absl::StatusCode::kUnimplemented: {
      // A coordinator of an older release lacks the call, and lists its jobs all the same.
      grpc::ClientContext context;
      SetDeadline(&context, patience);
      v1::ListRequest request;
      request.set_limit(1);
      v1::ListResponse response;
      if (stub_->List(&context, request, &response).ok()) {
        return absl::FailedPreconditionError(absl::StrCat("the coordinator at ", server,
                                                          " is older than this sluicectl (", ReleaseVersion(),
                                                          ") and cannot ", what, "; bring it to the same release"));
      }
      return absl::FailedPreconditionError(
          absl::StrCat("what answers at ", server, " is no coordinator (", status.message(), ")", kName));
    }
    case absl::StatusCode::kDeadlineExceeded:
      if (channel_->GetState(false) == GRPC_CHANNEL_READY) {
        return absl::DeadlineExceededError(
            absl::StrCat("the coordinator at ", server, " gave no answer within ", absl::FormatDuration(patience),
                         "; it is there, and busy or stuck: try again, or give it more time with --timeout"));
      }
      return absl::DeadlineExceededError(absl::StrCat("no connection to ", server, " within ",
                                                      absl::FormatDuration(patience),
                                                      "; look at the address and at what lies between, or give it more "
                                                      "time with --timeout"));
    case absl::StatusCode::kUnavailable: {
      const absl::string_view said = status.message();
      if (absl::StrContains(said, "esol")) {  // "DNS resolution failed", "Name resolution failure"
        return absl::UnavailableError(absl::StrCat("the host of ", server, " is not known here", kName));
      }
      if (absl::StrContains(said, "reset by peer") || absl::StrContains(said, "ocket closed")) {
        return absl::UnavailableError(absl::StrCat("what listens at ", server,
                                                   " ends every connection at once: it is no coordinator, or expects "
                                                   "TLS",
                                                   kName));
      }
      return absl::UnavailableError(absl::StrCat(
          "no coordinator answers at ", server,
          "; start one with 'sluice-learner coordinator', or name another with --server or SLUICE_SERVER"));
    }
    default:
      return status;
  }
}

absl::StatusOr<v1::SubmitResponse> JobClient::Submit(const v1::SubmitRequest& request) {
  return Unary(stub_.get(), &v1::JobService::Stub::Submit, request, "submit jobs");
}

absl::StatusOr<v1::ListResponse> JobClient::List(int limit) {
  v1::ListRequest request;
  request.set_limit(limit);
  return Unary(stub_.get(), &v1::JobService::Stub::List, request, "list jobs");
}

absl::StatusOr<v1::DescribeResponse> JobClient::Describe(const std::string& job_id) {
  v1::DescribeRequest request;
  request.set_job_id(job_id);
  return Unary(stub_.get(), &v1::JobService::Stub::Describe, request, "describe jobs");
}

absl::Status JobClient::Cancel(const std::string& job_id) {
  v1::CancelRequest request;
  request.set_job_id(job_id);
  return Unary(stub_.get(), &v1::JobService::Stub::Cancel, request, "cancel jobs").status();
}

absl::StatusOr<v1::ResumeResponse> JobClient::Resume(const std::string& job_id) {
  v1::ResumeRequest request;
  request.set_job_id(job_id);
  return Unary(stub_.get(), &v1::JobService::Stub::Resume, request, "resume jobs");
}

absl::Status JobClient::Pause(const std::string& job_id) {
  v1::PauseRequest request;
  request.set_job_id(job_id);
  return Unary(stub_.get(), &v1::JobService::Stub::Pause, request, "pause jobs").status();
}

absl::StatusOr<v1::KillResponse> JobClient::Kill(const std::string& job_id) {
  v1::KillRequest request;
  request.set_job_id(job_id);
  return Unary(stub_.get(), &v1::JobService::Stub::Kill, request, "kill jobs");
}

absl::StatusOr<v1::DeleteResponse> JobClient::Delete(const std::string& job_id, bool files) {
  v1::DeleteRequest request;
  request.set_job_id(job_id);
  request.set_files(files);
  return Unary(stub_.get(), &v1::JobService::Stub::Delete, request, "delete jobs", kSlowCall);
}

absl::StatusOr<v1::ForkResponse> JobClient::Fork(const v1::ForkRequest& request) {
  return Unary(stub_.get(), &v1::JobService::Stub::Fork, request, "fork jobs", kSlowCall);
}

absl::StatusOr<v1::PlanResponse> JobClient::Plan(const v1::PlanRequest& request) {
  return Unary(stub_.get(), &v1::JobService::Stub::Plan, request, "plan jobs", kSlowCall);
}

absl::StatusOr<v1::ServerInfoResponse> JobClient::ServerInfo(bool check_storage) {
  v1::ServerInfoRequest request;
  request.set_check_storage(check_storage);
  return Unary(stub_.get(), &v1::JobService::Stub::ServerInfo, request, "tell about itself",
               check_storage ? kSlowCall : absl::ZeroDuration());
}

absl::StatusOr<v1::ListArtifactsResponse> JobClient::ListArtifacts(const std::string& job_id) {
  v1::ListArtifactsRequest request;
  request.set_job_id(job_id);
  return Unary(stub_.get(), &v1::JobService::Stub::ListArtifacts, request, "list files");
}

absl::StatusOr<v1::ReadArtifactResponse> JobClient::ReadArtifact(const v1::ReadArtifactRequest& request) {
  return Unary(stub_.get(), &v1::JobService::Stub::ReadArtifact, request, "send files", kSlowCall);
}

absl::StatusOr<v1::TraceResponse> JobClient::Trace(const v1::TraceRequest& request) {
  return Unary(stub_.get(), &v1::JobService::Stub::Trace, request, "trace groups", kSlowCall);
}

absl::StatusOr<v1::CompareResponse> JobClient::Compare(const v1::CompareRequest& request) {
  return Unary(stub_.get(), &v1::JobService::Stub::Compare, request, "compare jobs", kSlowCall);
}

absl::StatusOr<v1::BeginPushResponse> JobClient::BeginPush(const v1::BeginPushRequest& request) {
  return Unary(data_.get(), &v1::DataService::Stub::Begin, request, "take data");
}

absl::StatusOr<v1::PutResponse> JobClient::Put(const v1::PutRequest& request) {
  return Unary(data_.get(), &v1::DataService::Stub::Put, request, "take data", kSlowCall);
}

absl::StatusOr<v1::CommitPushResponse> JobClient::CommitPush(const std::string& digest) {
  v1::CommitPushRequest request;
  request.set_digest(digest);
  return Unary(data_.get(), &v1::DataService::Stub::Commit, request, "take data", kSlowCall);
}

absl::StatusOr<v1::ListDataResponse> JobClient::ListData() {
  const v1::ListDataRequest request;
  return Unary(data_.get(), &v1::DataService::Stub::List, request, "take data");
}

absl::StatusOr<v1::RemoveDataResponse> JobClient::RemoveData(const std::string& digest) {
  v1::RemoveDataRequest request;
  request.set_digest(digest);
  return Unary(data_.get(), &v1::DataService::Stub::Remove, request, "take data");
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
