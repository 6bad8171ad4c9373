// Actors' journals (docs/journal.md) as entries of traces: what the actors that had a group wrote down of it.
#ifndef SLUICE_COMMON_TRACE_TRACE_JOURNALS_H_
#define SLUICE_COMMON_TRACE_TRACE_JOURNALS_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "sluice/v1/job.pb.h"

namespace sluice {

struct JournalNotes {
  int files = 0;
  uint64_t lines = 0;             // whole ones
  uint64_t torn = 0;              // lines that a kill or a full disk cut: passed over
  std::vector<std::string> gaps;  // why lines may be missing, a sentence each

  // All of it on a line.
  std::string Text() const;
};

// Which job's lines count where none is of the trace's.
enum class OtherJob {
  kRefused,
  // The only job of the journals, if it is one: a run without a coordinator has a name and no id.
  kOnlyOne,
};

// Adds what the journals at `paths`, files or folders of any depth, say of the trace's groups and job, and orders each
// group's entries. A group that no journal names keeps a gap that says so. InvalidArgument: a path
// without a journal, too many files, a journal of another format or of other jobs alone, or one larger than any
// actor's.
absl::StatusOr<JournalNotes> AddJournals(const std::vector<std::string>& paths, OtherJob other_job,
                                         v1::TraceResponse* trace);

}  // namespace sluice

#endif  // SLUICE_COMMON_TRACE_TRACE_JOURNALS_H_
