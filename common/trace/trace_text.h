// A trace for people and for programs. Pure functions.
#ifndef SLUICE_COMMON_TRACE_TRACE_TEXT_H_
#define SLUICE_COMMON_TRACE_TRACE_TEXT_H_

#include <nlohmann/json.hpp>
#include <string>

#include "absl/time/time.h"
#include "sluice/v1/job.pb.h"

namespace sluice {

// Of each group a sentence, its time line as a table (times in `zone`), and what is not known with why and how it would
// be.
std::string TraceText(const v1::TraceResponse& trace, absl::TimeZone zone);

// One group; what an entry does not have is left out of it. Times are UTC.
nlohmann::ordered_json TraceJson(const v1::GroupTrace& group);

}  // namespace sluice

#endif  // SLUICE_COMMON_TRACE_TRACE_TEXT_H_
