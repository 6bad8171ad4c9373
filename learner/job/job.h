// A job as the coordinator knows it: its states, its record, what happened to it. Plain data and one pure function.
// The wire form is proto/sluice/v1/job.proto.
#ifndef SLUICE_LEARNER_JOB_JOB_H_
#define SLUICE_LEARNER_JOB_JOB_H_

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "learner/ledger/group_source.h"

namespace sluice::learner {

enum class JobState {
  kQueued,     // waits for the group; also after a preemption
  kRunning,    // assigned to the group; stays so while a lost group forms again
  kPaused,     // stopped on request, with a checkpoint if it ran; waits for kResume
  kSucceeded,  // the others are terminal: only kResume leaves them, and not this one
  kFailed,
  kCancelled,
  kHeld,  // ended with a checkpoint, needs a person
};

bool IsTerminal(JobState state);
absl::string_view JobStateName(JobState state);  // "queued", ...

// What somebody asked of a running job that its ranks have not done yet. The numbers are the store's.
enum class JobWish {
  kNone = 0,
  kCancel = 1,  // end, with a checkpoint
  kPause = 2,   // stop with a checkpoint and wait
};

// What can happen to a job.
enum class JobInput {
  kAssign,   // a group takes it, or takes it again after it was lost
  kCancel,   // somebody asks for its end
  kKill,     // somebody ends it at once, whatever its ranks do
  kPause,    // somebody asks that it stops and waits
  kResume,   // somebody asks that a job which ended early, or is paused, goes on
  kPreempt,  // the group gave it back after a checkpoint
  kSucceed,  // outcomes, reported by rank 0
  kFail,
  kCancelled,
  kHold,
};

struct JobTransition {
  bool allowed = false;
  bool changed = false;  // false: the input was already taken; nothing to write
  JobState state = JobState::kQueued;
  JobWish wish = JobWish::kNone;
  std::string reason;  // for people: why refused, or what the change means
};

// The state machine. Pure. A repeated input is allowed and changes nothing, so that every report of an outcome may
// be retried.
JobTransition Decide(JobState state, JobWish wish, JobInput input);

struct JobRecord {
  std::string id;
  std::string request_id;
  std::string name;
  int kind = 0;             // number of v1::JobKind; not read here
  std::string spec;         // effective spec, serialized; not read here
  std::string spec_yaml;    // as written
  std::string spec_digest;  // SHA-256 of the effective spec's text
  JobState state = JobState::kQueued;
  JobWish wish = JobWish::kNone;
  absl::Time submitted = absl::InfinitePast();
  absl::Time started = absl::InfinitePast();  // InfinitePast: not yet
  absl::Time ended = absl::InfinitePast();
  std::string message;
  int exit_code = 0;  // design.md 6; meaningful once terminal
  uint64_t step = 0;
  uint64_t total_steps = 0;  // 0: not known yet
  std::string run_folder;
  std::string last_checkpoint;  // empty: none yet
  uint64_t policy_version = 0;  // the highest reserved
  uint64_t ordinals = 0;        // every ordinal below is issued
  uint64_t epoch = 0;           // the latest that it was assigned in
  int lost_groups = 0;          // assignments since the last step forward
  LedgerBalance balance;
  std::string forked_from;      // id of the job whose checkpoint this one began with; empty: none
  std::string fork_checkpoint;  // folder of that checkpoint's copy
};

struct StateChanged {
  JobState state = JobState::kQueued;
  std::string message;
  int exit_code = 0;
};

struct MetricsPoint {
  uint64_t step = 0;
  uint64_t total_steps = 0;
  std::map<std::string, double> values;
};

// Whether a line tells why a job stopped.
enum class LineCause {
  kNone,
  kOwn,   // something went wrong where the line comes from
  kPeer,  // it stopped because others did: the group broke
};

struct LogLine {
  std::string level;  // "info", "warning", "error"
  std::string text;
  std::string role = "learner";  // the kind of process that says it: "learner", "coordinator", "actor"
  int rank = 0;                  // of a learner, or of the one that an actor works for; -1: it has none
  LineCause cause = LineCause::kNone;
  std::string source = {};              // an actor's id
  std::optional<absl::Time> said = {};  // when, by an actor's clock
};

struct JobEvent {
  uint64_t sequence = 0;  // per job, from 1, without gaps
  absl::Time time;
  std::variant<StateChanged, MetricsPoint, LogLine> what;
};

// The event that tells why the job stopped, or why it does not get on: of the lines since the last assignment in which
// it made progress, the first whose cause lay where it was said, else the first that blames others, else the outcome
// if that is a bad one. Null: there is nothing to tell. Lines of all ranks are told apart by what they say of
// themselves, since their order of arrival is not that of what happened. Pure; `events` in their order.
const JobEvent* FirstCause(const std::vector<JobEvent>& events);

}  // namespace sluice::learner

#endif  // SLUICE_LEARNER_JOB_JOB_H_
