// How a job behaves with more actors, rankers and learner ranks than a machine holds: the learner's own books
// (RolloutHub with its ledger, leases, credits and version checks, PolicyStore, ChooseRank, Judge) as they are, on a
// virtual clock, against a discrete-event model of everything that takes time.
//
// Real: what is issued, leased, refused, judged stale and committed, which versions are kept and offered. Modelled by
// service times that are measured elsewhere: sampling, scoring, intake, judging, update, all-reduce, encoding and
// transfer of weights. The loop around the books follows learner/run/job_rl.cc and actor/rpc/actor_client.cc: an actor
// works on one lease at a time, scores it before it takes the next, loads a new version beside the present one, always
// follows the latest offer; a step starts when every rank has all its groups.
//
// Left out: validation, checkpoints, heartbeats (an actor that dies is noticed at once), lost messages, and that
// fetching weights slows an actor's sampling.
#ifndef SLUICE_TESTS_BENCH_SCALE_SIMULATOR_H_
#define SLUICE_TESTS_BENCH_SCALE_SIMULATOR_H_

#include <cstdint>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "learner/ledger/group_source.h"

namespace sluice::scale {

struct ScaleSpec {
  uint64_t seed = 1;
  int actors = 8;
  int rankers = 1;
  int ranks = 1;  // W

  int steps = 40;         // committed before the run ends
  int warmup_steps = 10;  // of these, before measuring starts
  int groups_per_step = 64;
  int lease_groups = 8;
  int group_size = 16;  // completions in a scripted group
  int staleness = 2;    // S; 0: synchronous
  int actor_credits = 2;
  int max_attempts = 5;
  double lease_deadline_s = 60;

  // An actor samples a lease of n prompts in (lease_s + n * prompt_s).
  double lease_s = 0;
  double prompt_s = 0.05;
  // A ranker scores it in (score_call_s + n * score_group_s); calls wait in one queue for the next free ranker.
  double score_call_s = 0.003;
  double score_group_s = 0.001;
  // A rank's serial work: taking one result in, and judging, training and updating n groups in
  // (update_s + n * (judge_s + train_s)), then one all-reduce of the gradient over all ranks.
  double take_in_s = 50e-6;
  double judge_s = 20e-6;
  double train_s = 0.01;
  double update_s = 0.01;
  // Sampling, scoring and training times are multiplied by lognormal noise of mean 1 and this coefficient of variation.
  double jitter = 0;

  double weight_bytes = 5e6;         // one published policy
  double gradient_bytes = 5e6;       // all-reduced a step
  double encode_bandwidth = 2e9;     // bytes/s: copy and checksum before publishing
  double verify_bandwidth = 5e9;     // bytes/s: an actor's checksum and load
  double rank_bandwidth = 1.25e9;    // bytes/s out of a rank, all its actors together
  double actor_bandwidth = 1.25e9;   // bytes/s into an actor, and out of it in a tree
  double reduce_bandwidth = 1.25e9;  // bytes/s of the slowest link of the ranks' ring
  double round_trip_s = 200e-6;
  // 0: every actor fetches from its rank, as the code does today. k >= 1: a tree in which the rank and every actor
  // serve k others, in chunks passed on as they come.
  int fan_out = 0;
  double chunk_bytes = 2097152;

  // Mean time between deaths of one actor, 0: none die; and how long until it attaches again.
  double actor_mtbf_s = 0;
  double actor_restart_s = 10;

  double virtual_limit_s = 1e7;  // a run that takes longer is an error

  absl::Status Validate() const;  // InvalidArgument names the field
  // InvalidArgument: an unknown key, or a value of the wrong type.
  static absl::StatusOr<ScaleSpec> FromJson(const nlohmann::json& json);
  nlohmann::ordered_json ToJson() const;
};

// What the service times alone allow, groups/s; infinity where something costs nothing.
struct Bounds {
  double actors = 0;   // N leases at a time, scoring included
  double rankers = 0;  // R calls at a time
  double intake = 0;   // results into W ranks
  double train = 0;    // W ranks, one step after the other, nothing else to wait for
  // S + 1 steps at most are open: a step takes at least 1 / (S + 1) of the way of its weights out and of its groups
  // back and through training.
  double window = 0;

  double lowest() const;
  std::string name_of_lowest() const;
};
Bounds AnalyticBounds(const ScaleSpec& spec);
// Seconds for one version to reach all of a rank's actors when nothing else is on the links.
double FanOutSeconds(const ScaleSpec& spec);
// Seconds of a ring all-reduce of `bytes` over `ranks`.
double ReduceSeconds(double bytes, int ranks, double bandwidth, double round_trip_s);

struct ScaleResult {
  double groups_per_s = 0;                 // committed, after warming up
  double step_s = 0;                       // mean
  std::map<uint64_t, uint64_t> staleness;  // versions behind at training -> groups, all steps
  double staleness_mean = 0;
  uint64_t stale_closed = 0;  // groups that the judge refused as stale
  uint64_t unsampled = 0;     // ... that trained without completions
  // Shares of the measured time.
  double actor_sampling = 0;
  double actor_scoring = 0;  // waiting for scores
  double ranker_busy = 0;
  double rank_training = 0;  // training, all-reduce, encoding
  double rank_intake = 0;
  double link_busy = 0;           // of the ranks' links to their actors
  double fetch_seconds_mean = 0;  // offer to verified
  double fetch_seconds_max = 0;
  uint64_t fetches = 0;
  uint64_t fetches_too_late = 0;  // the version was no longer kept
  uint64_t versions = 0;
  uint64_t leases = 0;
  uint64_t refused = 0;  // results that the ledger did not take
  uint64_t actor_deaths = 0;
  learner::LedgerBalance balance;  // over all ranks
  Bounds bounds;
  // CPU seconds of this machine inside the real hub a committed group: not part of the simulation, and not repeatable.
  double hub_cpu_s_per_group = 0;

  nlohmann::ordered_json ToJson(bool with_timing) const;
};

// Runs it to its last step, cancels what is open, and walks the books of every rank. Internal: they do not balance;
// DeadlineExceeded: past virtual_limit_s. Deterministic in the spec, hub_cpu_s_per_group apart.
absl::StatusOr<ScaleResult> Simulate(const ScaleSpec& spec);

}  // namespace sluice::scale

#endif  // SLUICE_TESTS_BENCH_SCALE_SIMULATOR_H_
