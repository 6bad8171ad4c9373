// The entries of a group's trace, whoever puts them in: the coordinator from the run folder, a client from journals.
#ifndef SLUICE_COMMON_TRACE_TRACE_ENTRIES_H_
#define SLUICE_COMMON_TRACE_TRACE_ENTRIES_H_

#include "sluice/v1/job.pb.h"

namespace sluice {

// TraceGap::what of what journals tell and nothing else does. Whoever adds journals takes it away again.
inline constexpr char kActorGap[] =
    "which actor had it, when it was leased, sampled and sent, and what the learner said";

// Earliest first. An entry without a time goes behind what came before it on a group's way (issued, leased, sampled,
// scored, sent, answered, judged, ended), beside the entries of its own lease where there are any. Pure.
void OrderEntries(v1::GroupTrace* group);

}  // namespace sluice

#endif  // SLUICE_COMMON_TRACE_TRACE_ENTRIES_H_
