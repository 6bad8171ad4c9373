// What a running job needs from its process, and what it tells it. The job loops (sft, rl, evaluate, prepare) see
// only these interfaces, so a test runs them in memory and main.cc joins them to gRPC.
#ifndef SLUICE_LEARNER_RUN_RUN_CONTEXT_H_
#define SLUICE_LEARNER_RUN_RUN_CONTEXT_H_

#include <cstdint>
#include <map>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/catalog/dataset.h"
#include "common/collective/collective.h"
#include "common/metrics/blocked.h"
#include "common/tensor/device.h"
#include "common/time/clock.h"
#include "learner/ledger/eval_source.h"
#include "learner/ledger/group_source.h"
#include "learner/options/options.h"

namespace sluice::learner {

enum class StopRequest {
  kNone,
  kCancel,   // end as cancelled, after a checkpoint
  kPreempt,  // end to be run again, after a checkpoint
};

// What a job tells the outside while it runs. Rank 0's calls count; the others' may be ignored. Thread-safe.
class JobMonitor {
 public:
  virtual ~JobMonitor() = default;
  // The present phase in one or two words ("training", "validation"): for describe and the phase metric.
  virtual void SetPhase(const std::string& phase) = 0;
  virtual void ReportMetrics(uint64_t step, uint64_t total_steps, const std::map<std::string, double>& values) = 0;
  virtual void ReportLog(const std::string& text) = 0;
  // A result for people: a path or a short text under a stable key ("export", "report", "table").
  virtual void ReportResult(const std::string& key, const std::string& value) = 0;
  virtual void ReportCheckpoint(const std::string& folder, uint64_t step, uint64_t policy_version,
                                const LedgerBalance& ledger) = 0;
  // Asked between steps.
  virtual StopRequest stop() const = 0;
};

// Durable counters of the job, kept by the coordinator (or locally in a one-shot run).
class Reservations {
 public:
  virtual ~Reservations() = default;
  // Greater than every version reserved for this job before, over restarts too, and than `after`: the last one that the
  // job has, at first that of the checkpoint which it goes on from, since what keeps the count may have been restored
  // from an older copy. Asked once for each `after`: by it a call that is repeated is known.
  virtual absl::StatusOr<uint64_t> NextPolicyVersion(uint64_t after) = 0;
  // Records that a step's ordinals are issued. Aborted: this epoch is over.
  virtual absl::Status ReserveOrdinals(uint64_t step, uint64_t first, uint64_t count) = 0;
};

// What actors must know of a job that they work for.
struct RolloutJob {
  std::string job_id;
  uint64_t epoch = 0;
  uint64_t seed = 0;
  std::string model_config_json;
  std::shared_ptr<const Dataset> dataset;
  RlOptions options;
  // Groups of one step on this rank.
  int groups_per_step = 0;
};

// Opens the rank's door to actors for one job at a time.
class RolloutService {
 public:
  virtual ~RolloutService() = default;
  // The source stays valid until EndJob. FailedPrecondition if a job is open.
  virtual absl::StatusOr<GroupSource*> StartJob(const RolloutJob& job) = 0;
  // Of the open job, for evaluation.
  virtual EvalSource* evaluation() = 0;
  virtual void EndJob() = 0;
};

// What a rank's jobs wait for; one a process.
struct JobWaits {
  JobWaits(Metrics* metrics, const NowFunction& now)
      : groups(metrics, now, "rank", "groups"),
        peers(metrics, now, "rank", "peers"),
        checkpoint(metrics, now, "rank", "checkpoint") {}

  Blocked groups;      // of a step, from the actors
  Blocked peers;       // in a collective call; the call itself is in it
  Blocked checkpoint;  // that is being written
};

struct RunContext {
  std::string job_id;
  JobOptions options;
  std::string spec_yaml;  // effective, as kept in the run folder
  std::string spec_digest;
  std::string resume_digest;  // of what must not change between a checkpoint and its resumption
  std::string run_folder;
  Collective* collective = nullptr;      // not null
  JobMonitor* monitor = nullptr;         // not null
  Reservations* reservations = nullptr;  // rl; evaluate, if it has rollouts
  RolloutService* rollouts = nullptr;    // rl; evaluate: null if it decodes alone
  NowFunction now;                       // monotonic
  JobWaits* waits = nullptr;             // may be null
  Placement placement;                   // of the job's policies; its device is open

  bool is_first() const { return collective->rank() == 0; }
};

// Runs the job to its end. OK: done. PreemptedError: stopped after a checkpoint, run again to resume. Cancelled.
// Anything else: failed, or the group broke (Unavailable, DeadlineExceeded, Aborted: resume in the next epoch).
absl::Status RunJob(const RunContext& context);

}  // namespace sluice::learner

#endif  // SLUICE_LEARNER_RUN_RUN_CONTEXT_H_
