// Files of recorded groups: one a rank in <run>/record, in frames.
//
//   file  = frame(header) frame(group)*
//   frame = uint32 length | uint64 XXH3-64 of the payload | payload (length bytes) | '\n'
//
// Integers are little-endian; payloads are those of group_record.h. The groups of one step are written by one write, in
// ordinal order, steps in order. A frame that the file's end cuts off is what a killed process left and is ignored; any
// other damage is DataLoss.
#ifndef SLUICE_LEARNER_RECORD_RECORD_FILE_H_
#define SLUICE_LEARNER_RECORD_RECORD_FILE_H_

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "common/file/file.h"
#include "learner/record/group_record.h"

namespace sluice::learner {

// The folder of a run's record.
std::string RecordFolder(const std::string& run_folder);

// Makes `folder` ready for a job that starts at `step`: groups of that step and later ones belong to a timeline that a
// resume abandons, and are dropped from every rank's file; without a step everything is. By one process, before any
// RecordWriter of the job is opened.
absl::Status RewindRecord(const std::string& folder, std::optional<uint64_t> step);

// One rank's file. Not thread-safe.
class RecordWriter {
 public:
  // Continues the rank's file, or begins it. max_bytes: what the file may reach; the first step that does not fit ends
  // the record, so that what is there is whole steps. FailedPrecondition: the file is of another job.
  static absl::StatusOr<std::unique_ptr<RecordWriter>> Open(const std::string& folder, int rank,
                                                            const RecordHeader& header, int64_t max_bytes);

  // One step's groups of this rank, in ordinal order. False: the record is full and nothing was written.
  absl::StatusOr<bool> Append(absl::Span<const GroupRecord> step);
  // What was appended survives a power cut.
  absl::Status Sync() { return file_->Sync(); }
  bool full() const { return full_; }

 private:
  RecordWriter(std::unique_ptr<AppendFile> file, int64_t bytes, int64_t max_bytes)
      : file_(std::move(file)), bytes_(bytes), max_bytes_(max_bytes) {}
  std::unique_ptr<AppendFile> file_;
  int64_t bytes_;
  const int64_t max_bytes_;
  bool full_ = false;
};

// What a run recorded: the steps from the first on that are whole over all ranks.
struct RecordedRun {
  RecordHeader header;
  std::vector<std::vector<GroupRecord>> steps;  // each in ordinal order
  uint64_t left_out = 0;                        // groups of steps that are not whole
};

// NotFound: the run has no record. DataLoss names file and place; also an ordinal recorded twice, or files of different
// jobs.
absl::StatusOr<RecordedRun> ReadRecord(const std::string& run_folder);

// Some groups of a run's record.
struct FoundGroups {
  struct Group {
    GroupRecord record;
    std::string file;  // its name in the record's folder: "rank-0000.groups"
  };
  std::map<uint64_t, Group> groups;  // by ordinal
  // Of those that were passed over or found: the record may end before its run does (rl.record_mib).
  std::optional<uint64_t> last_step;
};

// Looks for groups, step by step through each file, in pieces of a megabyte; whole steps or not. NotFound: the run has
// no record. DataLoss names file and place. ResourceExhausted: all files together have more than max_bytes.
absl::StatusOr<FoundGroups> FindGroups(const std::string& run_folder, const std::set<uint64_t>& ordinals,
                                       int64_t max_bytes);

}  // namespace sluice::learner

#endif  // SLUICE_LEARNER_RECORD_RECORD_FILE_H_
