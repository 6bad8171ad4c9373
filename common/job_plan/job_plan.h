// What a job will do and need, worked out before it is submitted: `sluicectl submit --dry-run`, on the client or the
// server.
#ifndef SLUICE_COMMON_JOB_PLAN_JOB_PLAN_H_
#define SLUICE_COMMON_JOB_PLAN_JOB_PLAN_H_

#include <nlohmann/json.hpp>
#include <string>

#include "sluice/v1/spec.pb.h"

namespace sluice {

// Counts, and memory by part, of a job with all its defaults on `ranks` learner ranks of `threads` compute threads, as
// far as this machine can see: sizes come from the data set's folder and the model's config.json, and "unknown" says
// what could not be read. Keys:
//
//   ranks, threads, counts {name: number}, learner_rank and actor {parts [{name, bytes, how}], total_bytes,
//   base_bytes}, unknown [text]
nlohmann::ordered_json PlanJob(const v1::JobSpec& effective, int ranks, int threads = 1);

// The same for people, each line a comment of YAML.
std::string PlanText(const nlohmann::ordered_json& plan);

}  // namespace sluice

#endif  // SLUICE_COMMON_JOB_PLAN_JOB_PLAN_H_
