// Event files for TensorBoard, written while a job runs.
//
// A file is records `uint64 length | masked CRC32C of it | Event | masked CRC32C of that`, little-endian; an Event is
// protobuf: 1 wall_time double, 2 step int64, 3 file_version string, 5 summary {1 value {1 tag, 2 simple_value float}},
// 7 session_log {1 status}. Source: tensorflow/core/lib/io/record_writer.cc, tensorflow/core/util/event.proto.
//
// Every attempt at a job has a file of its own, so that nothing is ever written behind a record that a killed process
// left torn: readers stop there and go on with the next file, in the order of the names. A resumed job's file begins
// with a restart record, at which readers drop the points that the resume abandoned.
#ifndef SLUICE_LEARNER_TENSORBOARD_EVENT_WRITER_H_
#define SLUICE_LEARNER_TENSORBOARD_EVENT_WRITER_H_

#include <cstdint>
#include <map>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "common/time/clock.h"

namespace sluice::learner {

// One attempt at one job. Not thread-safe. After an error of its own the writer is of no more use: the file may end in
// a torn record, and what would follow could not be read.
class EventWriter {
 public:
  // What one attempt may write: some millions of points. A file beyond it helps nobody.
  static constexpr uint64_t kMaxBytes = uint64_t{1} << 30;

  // folder: made, with the file, when there is something to write. now: the time of the events.
  EventWriter(std::string folder, NowFunction now, uint64_t max_bytes = kMaxBytes);
  ~EventWriter();
  EventWriter(const EventWriter&) = delete;
  EventWriter& operator=(const EventWriter&) = delete;

  // Before the first Append: points after `step`, which earlier attempts wrote, are abandoned; without a step all of
  // them. Writes nothing where no attempt has left a file.
  absl::Status Restart(std::optional<uint64_t> step);

  // One event, with one write(2); values that are not finite are left out, and numbers beyond float32 become infinite.
  // ResourceExhausted: max_bytes are written. Errors of the file system as common/file has them.
  absl::Status Append(uint64_t step, const std::map<std::string, double>& values);

  // Waits for the disk.
  absl::Status Sync();

 private:
  absl::Status Begin();
  absl::Status WriteRecord(absl::string_view event);
  absl::Status ErrorOf(absl::string_view doing) const;  // from errno

  const std::string folder_;
  const NowFunction now_;
  const uint64_t max_bytes_;
  std::string path_;     // of the file; empty: not begun
  int descriptor_ = -1;  // of the file
  uint64_t bytes_ = 0;
};

}  // namespace sluice::learner

#endif  // SLUICE_LEARNER_TENSORBOARD_EVENT_WRITER_H_
