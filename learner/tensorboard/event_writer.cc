#include "learner/tensorboard/event_writer.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cmath>
#include <cstring>
#include <limits>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/strip.h"
#include "absl/time/time.h"
#include "common/file/file.h"
#include "common/status/exit_code.h"
#include "common/status/status.h"
#include "learner/tensorboard/crc32c.h"

namespace sluice::learner {
namespace {

// Readers take files whose names hold "tfevents", in the order of the names.
constexpr char kPrefix[] = "events.out.tfevents.";
constexpr char kSuffix[] = ".sluice";
constexpr char kFileVersion[] = "brain.Event:2";
constexpr char kSessionStart = 1;  // SessionLog.SessionStatus.START

// Protobuf's types of fields on the wire.
enum WireType : uint64_t { kVarint = 0, kFixed64 = 1, kBytes = 2, kFixed32 = 5 };

void AppendLittleEndian(uint64_t value, int bytes, std::string* out) {
  for (int i = 0; i < bytes; ++i) out->push_back(static_cast<char>(value >> 8 * i & 0xFF));
}

void AppendVarint(uint64_t value, std::string* out) {
  for (; value >= 0x80; value >>= 7) out->push_back(static_cast<char>(value | 0x80));
  out->push_back(static_cast<char>(value));
}

void AppendTag(uint64_t field, WireType type, std::string* out) { AppendVarint(field << 3 | type, out); }

void AppendBytes(uint64_t field, absl::string_view bytes, std::string* out) {
  AppendTag(field, kBytes, out);
  AppendVarint(bytes.size(), out);
  absl::StrAppend(out, bytes);
}

std::string EventAt(absl::Time time, uint64_t step) {
  std::string event;
  AppendTag(1, kFixed64, &event);
  AppendLittleEndian(std::bit_cast<uint64_t>(absl::ToDoubleSeconds(time - absl::UnixEpoch())), 8, &event);
  AppendTag(2, kVarint, &event);
  AppendVarint(step, &event);
  return event;
}

float ToFloat(double value) {
  if (std::fabs(value) <= std::numeric_limits<float>::max()) return static_cast<float>(value);
  return value > 0 ? std::numeric_limits<float>::infinity() : -std::numeric_limits<float>::infinity();
}

bool IsEventFile(absl::string_view name) { return absl::StrContains(name, "tfevents"); }

// The number in the name of one of our files; 0 for others.
uint64_t NumberOf(absl::string_view name) {
  uint64_t number = 0;
  if (!absl::ConsumePrefix(&name, kPrefix) || !absl::ConsumeSuffix(&name, kSuffix)) return 0;
  return absl::SimpleAtoi(name, &number) ? number : 0;
}

}  // namespace

EventWriter::EventWriter(std::string folder, NowFunction now, uint64_t max_bytes)
    : folder_(std::move(folder)), now_(std::move(now)), max_bytes_(max_bytes) {}

EventWriter::~EventWriter() {
  if (descriptor_ >= 0) ::close(descriptor_);
}

absl::Status EventWriter::ErrorOf(absl::string_view doing) const {
  const int error = errno;
  const std::string message = absl::StrCat("cannot ", doing, " '", path_, "': ", std::strerror(error));
  return error == ENOSPC || error == EDQUOT || error == EFBIG ? NoSpaceError(message) : absl::InternalError(message);
}

absl::Status EventWriter::Begin() {
  SLUICE_RETURN_IF_ERROR(MakeDirectories(folder_));
  SLUICE_ASSIGN_OR_RETURN(const std::vector<std::string> names, ListDirectory(folder_));
  // By the clock, as other writers name theirs, but behind every earlier attempt's though the clock was set back.
  uint64_t number = static_cast<uint64_t>(std::max<int64_t>(0, absl::ToUnixSeconds(now_())));
  for (const std::string& name : names) number = std::max(number, NumberOf(name) + 1);
  path_ = JoinPath(folder_, absl::StrFormat("%s%010d%s", kPrefix, number, kSuffix));
  descriptor_ = ::open(path_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_APPEND | O_CLOEXEC, 0644);
  if (descriptor_ < 0) return ErrorOf("create");
  SLUICE_RETURN_IF_ERROR(SyncDirectory(folder_));
  std::string event = EventAt(now_(), 0);
  AppendBytes(3, kFileVersion, &event);
  return WriteRecord(event);
}

absl::Status EventWriter::WriteRecord(absl::string_view event) {
  std::string record;
  AppendLittleEndian(event.size(), 8, &record);
  AppendLittleEndian(MaskedCrc32c(record), 4, &record);
  absl::StrAppend(&record, event);
  AppendLittleEndian(MaskedCrc32c(event), 4, &record);
  if (bytes_ + record.size() > max_bytes_) {
    return absl::ResourceExhaustedError(absl::StrCat("'", path_, "' has its ", max_bytes_, " bytes"));
  }
  for (absl::string_view left = record; !left.empty();) {
    const ssize_t written = ::write(descriptor_, left.data(), left.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return ErrorOf("write");
    left.remove_prefix(static_cast<size_t>(written));
  }
  bytes_ += record.size();
  return absl::OkStatus();
}

absl::Status EventWriter::Restart(std::optional<uint64_t> step) {
  if (!PathExists(folder_)) return absl::OkStatus();
  SLUICE_ASSIGN_OR_RETURN(const std::vector<std::string> names, ListDirectory(folder_));
  if (std::none_of(names.begin(), names.end(), IsEventFile)) return absl::OkStatus();
  SLUICE_RETURN_IF_ERROR(Begin());
  // Readers drop every point of this step or a later one.
  std::string event = EventAt(now_(), step ? *step + 1 : 0);
  std::string session;
  AppendTag(1, kVarint, &session);
  session.push_back(kSessionStart);
  AppendBytes(7, session, &event);
  return WriteRecord(event);
}

absl::Status EventWriter::Append(uint64_t step, const std::map<std::string, double>& values) {
  std::string summary;
  for (const auto& [name, number] : values) {
    if (!std::isfinite(number)) continue;
    std::string value;
    AppendBytes(1, name, &value);
    AppendTag(2, kFixed32, &value);
    AppendLittleEndian(std::bit_cast<uint32_t>(ToFloat(number)), 4, &value);
    AppendBytes(1, value, &summary);
  }
  if (summary.empty()) return absl::OkStatus();
  if (descriptor_ < 0) SLUICE_RETURN_IF_ERROR(Begin());
  std::string event = EventAt(now_(), step);
  AppendBytes(5, summary, &event);
  return WriteRecord(event);
}

absl::Status EventWriter::Sync() {
  if (descriptor_ < 0 || ::fsync(descriptor_) == 0) return absl::OkStatus();
  return ErrorOf("fsync");
}

}  // namespace sluice::learner
