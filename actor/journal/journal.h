// What an actor did, in its own words: a small append-only file beside it, which an auditor holds against the learner's
// ledger and record (docs/journal.md).
//
// One JSON object a line, closed by the first digits of its SHA-256, so that a torn or damaged line is known for one.
// A thread of its own writes: no disk slows the actor by more than `longest_wait`, once, and a full one is counted,
// told once, and does not stop anything. Bounded: files of `max_file_bytes`, the oldest beyond `max_files` removed.
#ifndef SLUICE_ACTOR_JOURNAL_JOURNAL_H_
#define SLUICE_ACTOR_JOURNAL_JOURNAL_H_

#include <cstdint>
#include <deque>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "actor/rollout/lease_block.h"
#include "common/file/file.h"
#include "common/sync/mutex.h"
#include "common/time/clock.h"

namespace sluice::actor {

struct JournalOptions {
  std::string folder;  // of this actor alone; made if it is not there
  std::string actor_id;
  int64_t max_file_bytes = int64_t{8} << 20;
  int max_files = 8;
  size_t max_queued_lines = 4096;  // beyond it lines are dropped, and counted
  // Of SendingResults, for its line to be written.
  absl::Duration longest_wait = absl::Milliseconds(100);
  // A power cut loses the lines since the last fsync, a killed process none that was written.
  absl::Duration sync_every = absl::Seconds(1);
  NowFunction wall;  // of the lines' times
  NowFunction now;   // monotonic, for sync_every
};

// Thread-safe, but for Run and WriteOnce, which one thread calls.
class Journal {
 public:
  // Unavailable: another process writes its journal there. Others as of common/file.
  static absl::StatusOr<std::unique_ptr<Journal>> Open(JournalOptions options);

  // What became of the groups of a lease. Leases for evaluation (kDecode) are not groups and leave no line.
  void Leased(const LeaseBlock& block);
  void Sampled(const LeaseBlock& block, uint64_t policy_version);
  // Sampled and scored; how each group fared, and by which ranker.
  void Scored(const LeaseBlock& block, absl::Span<const PromptOutcome> outcomes);
  // Returns when the line is written, or after longest_wait: a group that left has its line, also if the process is
  // killed right after that.
  void SendingResults(const LeaseBlock& block, absl::Span<const PromptOutcome> outcomes);
  void GaveBack(const LeaseBlock& block, absl::string_view reason);
  // What the rank said of a result. `reason` as of v1::Ack.
  void Answered(uint64_t ordinal, uint32_t attempt, bool accepted, absl::string_view reason);

  // Writes until Close, then what is left.
  void Run();
  // Writes what is queued, and syncs if it is time. False: closed, and nothing is left.
  bool WriteOnce();
  void Close();

  // Lines that are not in the file: the queue or the disk was full.
  uint64_t dropped() const;

 private:
  explicit Journal(JournalOptions options) : options_(std::move(options)) {}

  // Queues an object that lacks its closing brace. Returns its number, or 0 if it was dropped.
  uint64_t Add(std::string object);
  absl::Status OpenNext();
  absl::Status Write(const std::deque<std::string>& lines);
  void CountDropped(uint64_t lines, const absl::Status& why);
  std::string Closed(absl::string_view object) const;

  const JournalOptions options_;
  std::unique_ptr<FileLock> lock_;

  // Of the writing thread.
  std::unique_ptr<AppendFile> file_;
  int64_t number_ = 0;      // of the file
  int64_t file_bytes_ = 0;  // in it
  bool torn_ = false;       // its last line may lack its end
  bool unsynced_ = false;
  absl::Time synced_ = absl::InfinitePast();
  uint64_t told_dropped_ = 0;  // in the file

  mutable Mutex mutex_;
  CondVar changed_;
  std::deque<std::string> queue_ ABSL_GUARDED_BY(mutex_);
  uint64_t added_ ABSL_GUARDED_BY(mutex_) = 0;
  uint64_t settled_ ABSL_GUARDED_BY(mutex_) = 0;  // of the added: written or dropped
  uint64_t dropped_ ABSL_GUARDED_BY(mutex_) = 0;
  bool lagging_ ABSL_GUARDED_BY(mutex_) = false;  // a wait was in vain; none more until the queue is empty
  bool told_ ABSL_GUARDED_BY(mutex_) = false;
  bool closed_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace sluice::actor

#endif  // SLUICE_ACTOR_JOURNAL_JOURNAL_H_
