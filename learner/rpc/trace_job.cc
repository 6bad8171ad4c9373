#include "learner/rpc/trace_job.h"

#include <algorithm>
#include <map>
#include <optional>
#include <set>
#include <utility>
#include <variant>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/time.h"
#include "common/file/file.h"
#include "common/rpc/timestamp.h"
#include "common/spec/spec.h"
#include "common/status/status.h"
#include "common/trace/trace_entries.h"
#include "common/types/score_status_name.h"
#include "learner/objective/gate.h"
#include "learner/options/options.h"
#include "learner/rpc/options_from_spec.h"
#include "learner/trace/run_trace.h"

namespace sluice::learner {
namespace {

constexpr size_t kMaxOrdinals = 100;
// Events are read so many at a time: the job store is not held for all of them.
constexpr int kEventsAtATime = 1000;
// Lines of the job beside a group: the last ones.
constexpr size_t kMaxJobLines = 20;

// What there is to know of a job beside its run folder.
struct JobFacts {
  std::string id;
  std::string run_folder;
  RlOptions rl;
  std::optional<JobRecord> job;               // none: of a folder alone
  std::map<uint64_t, JobEvent> points;        // by the number of steps that were done: the latest report of each
  std::vector<JobEvent> lines;                // states, warnings and errors, oldest first
  std::map<uint64_t, StepReservation> steps;  // of the steps that are asked for, where the store still has them
};

uint64_t StepOf(uint64_t ordinal, const RlOptions& rl) { return ordinal / static_cast<uint64_t>(rl.groups_per_step); }

absl::StatusOr<std::vector<uint64_t>> CheckOrdinals(const std::vector<uint64_t>& asked, const RlOptions& rl) {
  if (asked.empty() || asked.size() > kMaxOrdinals) {
    return absl::InvalidArgumentError(absl::StrCat("ordinals: want 1 to ", kMaxOrdinals, ", got ", asked.size(),
                                                   "; ask for the rest by another call"));
  }
  const uint64_t end = static_cast<uint64_t>(rl.steps) * static_cast<uint64_t>(rl.groups_per_step);
  std::vector<uint64_t> ordinals;
  for (const uint64_t ordinal : asked) {
    if (ordinal >= end) {
      return absl::InvalidArgumentError(absl::StrCat("no group of this job has the ordinal ", ordinal, ": its ",
                                                     rl.steps, " steps of ", rl.groups_per_step, " groups have 0 to ",
                                                     end - 1));
    }
    if (std::find(ordinals.begin(), ordinals.end(), ordinal) == ordinals.end()) ordinals.push_back(ordinal);
  }
  return ordinals;
}

absl::Status WantRl(absl::string_view what, v1::JobKind kind) {
  if (kind == v1::JOB_KIND_RL) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(
      what, " is not of an rl job, and others have no groups; 'sluicectl logs' and 'metrics' tell of those"));
}

absl::Status ReadEvents(JobStore* store, JobFacts* facts) {
  uint64_t sequence = 0;
  while (true) {
    SLUICE_ASSIGN_OR_RETURN(const std::vector<JobEvent> events, store->Events(facts->id, sequence, kEventsAtATime));
    for (const JobEvent& event : events) {
      sequence = event.sequence;
      const auto* line = std::get_if<LogLine>(&event.what);
      if (const auto* point = std::get_if<MetricsPoint>(&event.what)) {
        facts->points[point->step] = event;
      } else if (line == nullptr || line->level != "info") {
        facts->lines.push_back(event);
      }
    }
    if (static_cast<int>(events.size()) < kEventsAtATime) return absl::OkStatus();
  }
}

std::string HeadText(const ScoreHead& head) {
  std::string text = absl::StrFormat("head %s: target %.4g", head.name, head.target_score);
  if (!head.completion_scores.empty()) {
    const auto [low, high] = std::minmax_element(head.completion_scores.begin(), head.completion_scores.end());
    absl::StrAppendFormat(&text, ", %d completions %.4g to %.4g", head.completion_scores.size(), *low, *high);
  }
  if (!head.negative_scores.empty()) {
    const auto [low, high] = std::minmax_element(head.negative_scores.begin(), head.negative_scores.end());
    absl::StrAppendFormat(&text, ", %d negatives %.4g to %.4g", head.negative_scores.size(), *low, *high);
  }
  return text;
}

// Builds the trace of one group.
class GroupTracer {
 public:
  GroupTracer(const JobFacts& facts, const RunTrace& run, const TracedGroup& group)
      : facts_(facts), run_(run), group_(group), step_(StepOf(group.ordinal, facts.rl)) {}

  v1::GroupTrace Build() {
    trace_.set_ordinal(group_.ordinal);
    trace_.set_step(step_);
    SetState();
    trace_.set_summary(Summary());
    if (trace_.state() == "not_issued") return std::move(trace_);
    AddIssued();
    AddOpen();
    AddRecorded();
    AddEnd();
    AddJobLines();
    AddGaps();
    OrderEntries(&trace_);
    return std::move(trace_);
  }

 private:
  bool recorded() const { return group_.record.has_value(); }
  const GroupRecord& record() const { return group_.record->record; }
  // Trained by the record, in a step that no checkpoint has yet.
  bool ahead() const { return recorded() && !group_.ended; }

  void SetState() {
    if (group_.ended) {
      trace_.set_state(TerminalStateName(group_.ended->state));
      trace_.set_reason(group_.ended->reason);
    } else if (recorded()) {
      trace_.set_state(record().bad_data ? "failed" : "trained");
      trace_.set_reason(record().bad_data ? "bad_data" : std::string(GateReasonName(record().reason)));
    } else {
      const uint64_t issued = std::max(run_.issued, facts_.job ? facts_.job->ordinals : 0);
      trace_.set_state(group_.ordinal < issued ? "open" : "not_issued");
    }
  }

  // "the job is running, at step 7".
  std::string JobText() const {
    if (!facts_.job) return absl::StrCat("the run's last checkpoint is of step ", run_.checkpoint_steps);
    return absl::StrCat("the job is ", JobStateName(facts_.job->state), ", at step ", facts_.job->step);
  }

  std::string Summary() const {
    const std::string& state = trace_.state();
    if (state == "not_issued") {
      return absl::StrCat("not issued: it is of step ", step_, ", and ", JobText(), " of ", facts_.rl.steps);
    }
    if (state == "open") {
      std::string text = absl::StrCat("open: issued for step ", step_, ", and ",
                                      run_.checkpoint.empty()
                                          ? "there is no checkpoint yet"
                                          : absl::StrCat("not ended at the checkpoint of step ", run_.checkpoint_steps),
                                      "; ", JobText());
      if (facts_.job && IsTerminal(facts_.job->state)) {
        absl::StrAppend(&text, ", and would issue it again if it was resumed");
      } else {
        absl::StrAppend(&text, "; the next checkpoint tells more");
      }
      return text;
    }
    if (state == "cancelled") return absl::StrCat("cancelled before step ", step_, " was trained: ", trace_.reason());
    std::string text = absl::StrCat(state, " in step ", step_, ": ", trace_.reason());
    if (ahead()) {
      absl::StrAppend(&text,
                      ", by the record; the ledger has it from the next checkpoint on, and without one the step "
                      "is trained again");
    }
    return text;
  }

  v1::TraceEntry* Add(const std::string& event, const std::string& source) {
    v1::TraceEntry* entry = trace_.add_entries();
    entry->set_event(event);
    entry->set_source(source);
    return entry;
  }

  void AddIssued() {
    const auto reservation = facts_.steps.find(step_);
    const bool reserved = reservation != facts_.steps.end();
    v1::TraceEntry* entry = Add("issued", reserved          ? "job store"
                                          : group_.ended    ? "ledger.csv"
                                          : recorded()      ? RecordSource()
                                          : run_.issued > 0 ? run_.checkpoint
                                                            : "job store");
    if (reserved) entry->set_epoch(reservation->second.epoch);
    if (group_.ended) {
      entry->set_user(group_.ended->user);
      entry->set_position(group_.ended->position);
    } else if (recorded()) {
      entry->set_user(record().user);
    }
    if (recorded()) entry->set_target(record().target);
    entry->set_text(absl::StrCat("for step ", step_));
  }

  void AddOpen() {
    if (!group_.open_attempt || group_.ended) return;
    v1::TraceEntry* entry = Add("open", run_.checkpoint);
    if (*group_.open_attempt > 0) entry->set_attempt(*group_.open_attempt);
    entry->set_text(absl::StrCat("at the checkpoint of step ", run_.checkpoint_steps,
                                 *group_.open_attempt > 0 ? ", with its last attempt" : ", not leased yet"));
  }

  std::string RecordSource() const { return absl::StrCat("record/", group_.record->file); }

  void AddRecorded() {
    if (!recorded()) return;
    const GroupRecord& record = this->record();
    if (record.group) {
      const ScoredGroup& group = *record.group;
      const auto leased = [&group](v1::TraceEntry* entry) {
        entry->set_attempt(group.attempt);
        entry->set_lease(group.lease_id);
        return entry;
      };
      v1::TraceEntry* sampled = leased(Add("sampled", RecordSource()));
      sampled->set_policy_version(group.behavior_version);
      sampled->set_text(absl::StrCat(group.completions.size(), " completions"));
      v1::TraceEntry* scored = leased(Add("scored", RecordSource()));
      scored->set_scores(std::string(ScoreStatusName(group.score_status)));
      scored->set_ranker(group.ranker_version);
      scored->set_text(!group.score_error.empty() ? group.score_error
                       : group.heads.empty()      ? ""
                                                  : HeadText(group.heads.front()));
    }
    v1::TraceEntry* judged = Add("judged", RecordSource());
    SetStepTime(judged);
    judged->set_policy_version(record.learner_version);
    if (record.bad_data) {
      judged->set_text("not judged: what was to be sampled is bad data");
      return;
    }
    judged->set_reason(std::string(GateReasonName(record.reason)));
    std::string text = absl::StrCat("the gate is ", record.gate_open ? "open" : "closed");
    if (record.gate_reason != record.reason) absl::StrAppend(&text, " (", GateReasonName(record.gate_reason), ")");
    absl::StrAppendFormat(&text, ", admission %.4g", record.admission);
    if (record.group) {
      judged->set_attempt(record.group->attempt);
      judged->set_lease(record.group->lease_id);
      absl::StrAppend(&text, ", staleness ", record.learner_version - record.group->behavior_version);
    } else {
      absl::StrAppend(&text, ", no completions");
    }
    judged->set_text(text);
  }

  void AddEnd() {
    if (!group_.ended && !recorded()) return;
    v1::TraceEntry* entry = Add("ended", group_.ended ? "ledger.csv" : RecordSource());
    entry->set_reason(trace_.reason());
    entry->set_text(absl::StrCat(trace_.state(), " in step ", group_.ended ? group_.ended->step : record().step));
    if (Trained()) SetStepTime(entry);
  }

  // When the step's training was reported. Steps are numbered from 0, and reports count those that were done.
  void SetStepTime(v1::TraceEntry* entry) const {
    const auto point = facts_.points.find(step_ + 1);
    if (point != facts_.points.end()) SetTime(point->second.time, entry->mutable_time());
  }

  bool Trained() const { return trace_.state() == "trained" || trace_.state() == "failed"; }

  // States, warnings and errors of the job from the oldest version that may have sampled the group until its step.
  void AddJobLines() {
    const uint64_t stale = static_cast<uint64_t>(std::max(0, facts_.rl.staleness)) + 1;
    // The first ones have been there since the job began.
    const auto first = facts_.points.lower_bound(step_ <= stale ? 0 : step_ - stale);
    const auto last = facts_.points.find(step_ + 1);
    std::vector<const JobEvent*> lines;
    for (const JobEvent& line : facts_.lines) {
      const bool after = step_ <= stale || first == facts_.points.end() || line.sequence > first->second.sequence;
      const bool before = last == facts_.points.end() || line.sequence < last->second.sequence;
      if (after && before) lines.push_back(&line);
    }
    const size_t left_out = lines.size() > kMaxJobLines ? lines.size() - kMaxJobLines : 0;
    for (size_t i = left_out; i < lines.size(); ++i) {
      v1::TraceEntry* entry = Add("job", absl::StrCat("event ", lines[i]->sequence));
      SetTime(lines[i]->time, entry->mutable_time());
      if (const auto* state = std::get_if<StateChanged>(&lines[i]->what)) {
        entry->set_text(absl::StrCat("the job is ", JobStateName(state->state),
                                     state->message.empty() ? "" : absl::StrCat(": ", state->message)));
      } else if (const auto* line = std::get_if<LogLine>(&lines[i]->what)) {
        entry->set_text(
            absl::StrCat(line->level, line->rank >= 0 ? absl::StrCat(" of rank ", line->rank) : "", ": ", line->text));
      }
    }
  }

  void Gap(const std::string& what, const std::string& why, const std::string& remedy) {
    v1::TraceGap* gap = trace_.add_unknown();
    gap->set_what(what);
    gap->set_why(why);
    gap->set_remedy(remedy);
  }

  void AddGaps() {
    if (!group_.ended) {
      Gap(recorded() ? "the position of its prompt" : "user and position of its prompt",
          "the ledger's table has groups that ended before the last checkpoint",
          "trace it again after the next checkpoint");
    }
    if (!recorded() && (Trained() || trace_.state() == "open")) AddRecordGap();
    Gap(kActorGap, "actors alone write that down",
        "start actors with --journal FOLDER and name those folders with "
        "--journal here");
    if (!Trained() || facts_.points.count(step_ + 1) > 0) return;
    if (facts_.job) {
      Gap("when it was trained", "the coordinator has forgotten the job's events of that step",
          absl::StrCat("the line of step ", step_ + 1, " in metrics.jsonl has the job's seconds until then"));
    } else {
      Gap("when it was trained, and what happened to the job meanwhile", "a run folder has no times of day",
          "its coordinator has the job's events: sluicectl trace JOB");
    }
  }

  void AddRecordGap() {
    const std::string what = "attempt, lease, policy version, ranker and verdict";
    if (!run_.record_problem.empty()) {
      Gap(what, run_.record_problem, "sluicectl replay and advise read a record of any size");
    } else if (!facts_.rl.record) {
      Gap(what, "the job does not record its groups",
          "set rl.record: true; sluicectl fork JOB --set rl.record=true begins such a job from this one's checkpoint");
    } else if (run_.record_end && *run_.record_end < step_ && Trained()) {
      Gap(what, absl::StrCat("the record ends with step ", *run_.record_end, ", as its size has a bound"),
          absl::StrCat("set rl.record_mib above ", facts_.rl.record_mib));
    } else if (Trained()) {
      Gap(what, "it is not in the record", "the files in record/ may have been removed: restore them from a backup");
    } else {
      Gap(what, "a group is recorded when it is judged", "trace it again later");
    }
  }

  const JobFacts& facts_;
  const RunTrace& run_;
  const TracedGroup& group_;
  const uint64_t step_;
  v1::GroupTrace trace_;
};

absl::StatusOr<v1::TraceResponse> Trace(const JobFacts& facts, const std::vector<uint64_t>& ordinals) {
  SLUICE_ASSIGN_OR_RETURN(const RunTrace run, TraceRun(facts.run_folder, ordinals));
  v1::TraceResponse response;
  response.set_job_id(facts.id);
  for (const TracedGroup& group : run.groups) *response.add_groups() = GroupTracer(facts, run, group).Build();
  return response;
}

}  // namespace

absl::StatusOr<v1::TraceResponse> TraceJob(const v1::TraceRequest& request, JobStore* store) {
  SLUICE_ASSIGN_OR_RETURN(JobRecord job, store->Get(request.job_id()));
  SLUICE_RETURN_IF_ERROR(WantRl(absl::StrCat("job ", job.id), static_cast<v1::JobKind>(job.kind)));
  v1::JobSpec spec;
  if (!spec.ParseFromString(job.spec)) {
    return absl::DataLossError(absl::StrCat("the spec of job ", job.id, " cannot be read"));
  }
  JobFacts facts;
  facts.id = job.id;
  facts.run_folder = job.run_folder;
  facts.rl = CopyOptions(spec).rl;
  SLUICE_ASSIGN_OR_RETURN(const std::vector<uint64_t> ordinals,
                          CheckOrdinals({request.ordinals().begin(), request.ordinals().end()}, facts.rl));
  SLUICE_RETURN_IF_ERROR(ReadEvents(store, &facts));
  for (const uint64_t ordinal : ordinals) {
    const uint64_t step = StepOf(ordinal, facts.rl);
    SLUICE_ASSIGN_OR_RETURN(const std::optional<StepReservation> reservation, store->ReservationOf(job.id, step));
    if (reservation) facts.steps[step] = *reservation;
  }
  facts.job = std::move(job);
  return Trace(facts, ordinals);
}

absl::StatusOr<v1::TraceResponse> TraceFolder(const std::string& run_folder, const std::vector<uint64_t>& ordinals) {
  const std::string path = JoinPath(run_folder, "spec.yaml");
  if (!PathExists(path)) {
    return absl::InvalidArgumentError(absl::StrCat("'", run_folder, "' is not the folder of a run",
                                                   RelativeTo(run_folder), ": there is no spec.yaml in it"));
  }
  SLUICE_ASSIGN_OR_RETURN(const std::string yaml, ReadFile(path, kMaxSpecBytes));
  SLUICE_ASSIGN_OR_RETURN(const ResolvedSpec spec, ResolveSpec(yaml, path));
  SLUICE_RETURN_IF_ERROR(WantRl(absl::StrCat("'", run_folder, "'"), spec.effective.kind()));
  JobFacts facts;
  const std::string whole = run_folder.substr(0, run_folder.find_last_not_of('/') + 1);
  facts.id = whole.substr(whole.rfind('/') + 1);
  facts.run_folder = run_folder;
  facts.rl = CopyOptions(spec.effective).rl;
  SLUICE_ASSIGN_OR_RETURN(const std::vector<uint64_t> checked, CheckOrdinals(ordinals, facts.rl));
  return Trace(facts, checked);
}

}  // namespace sluice::learner
