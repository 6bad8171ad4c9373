#include "common/trace/trace_journals.h"

#include <algorithm>
#include <deque>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <system_error>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"
#include "common/file/file.h"
#include "common/rpc/timestamp.h"
#include "common/status/status.h"
#include "common/trace/trace_entries.h"

namespace sluice {
namespace {

using Json = nlohmann::json;

constexpr int kFormat = 1;
// An actor's journal has 8 files of 8 MiB by default.
constexpr int64_t kMaxFileBytes = int64_t{64} << 20;
constexpr size_t kMaxFiles = 10000;
constexpr absl::string_view kPrefix = "journal-";
constexpr absl::string_view kSuffix = ".jsonl";
constexpr absl::string_view kCheck = ",\"check\":\"";
constexpr size_t kCheckDigits = 8;

bool IsJournal(absl::string_view name) { return absl::StartsWith(name, kPrefix) && absl::EndsWith(name, kSuffix); }

int64_t NumberOf(const std::string& path) {
  absl::string_view name = path;
  name.remove_prefix(name.rfind('/') + 1);
  int64_t number = 0;
  name.remove_prefix(kPrefix.size());
  return absl::SimpleAtoi(name.substr(0, name.size() - kSuffix.size()), &number) ? number : 0;
}

absl::StatusOr<std::vector<std::string>> FilesAt(const std::string& path) {
  namespace fs = std::filesystem;
  std::vector<std::string> files;
  std::error_code error;
  if (fs::is_directory(path, error)) {
    for (fs::recursive_directory_iterator at(path, error), end; !error && at != end; at.increment(error)) {
      if (IsJournal(at->path().filename().string())) files.push_back(at->path().string());
      if (files.size() > kMaxFiles) {
        return absl::InvalidArgumentError(absl::StrCat("'", path, "' holds more than ", kMaxFiles,
                                                       " journals; name the folders of this job's actors"));
      }
    }
  } else if (fs::is_regular_file(path, error) && IsJournal(fs::path(path).filename().string())) {
    files.push_back(path);
  }
  if (files.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat("there is no journal at '", path, "'", RelativeTo(path),
                     "; want files journal-NUMBER.jsonl, as sluice-actor --journal writes them"));
  }
  std::sort(files.begin(), files.end());
  return files;
}

// A whole line, or an empty object of one that was torn.
Json Parse(absl::string_view line) {
  const size_t tail = kCheck.size() + kCheckDigits + 2;
  if (line.size() <= tail) return Json::object();
  const absl::string_view object = line.substr(0, line.size() - tail);
  if (line.substr(object.size(), kCheck.size()) != kCheck ||
      line.substr(object.size() + kCheck.size(), kCheckDigits) != Sha256(object).substr(0, kCheckDigits)) {
    return Json::object();
  }
  Json json = Json::parse(line.begin(), line.end(), nullptr, /*allow_exceptions=*/false);
  return json.is_object() ? json : Json::object();
}

uint64_t Number(const Json& json, const char* key) {
  const auto found = json.find(key);
  return found != json.end() && found->is_number_unsigned() ? found->get<uint64_t>() : 0;
}

std::string Text(const Json& json, const char* key) {
  const auto found = json.find(key);
  return found != json.end() && found->is_string() ? found->get<std::string>() : "";
}

class Reader {
 public:
  explicit Reader(v1::TraceResponse* trace) : trace_(trace) {
    for (v1::GroupTrace& group : *trace->mutable_groups()) groups_[group.ordinal()] = &group;
  }

  absl::Status Read(const std::string& path);
  // Gives the trace the entries of its job.
  absl::Status Settle(OtherJob other_job);
  JournalNotes& notes() { return notes_; }

 private:
  // A group's lease, as far as answers have to know it: those name group and attempt alone.
  struct Lease {
    std::string job;
    uint64_t epoch = 0;
    uint64_t lease = 0;
  };
  using Leases = std::map<std::pair<uint64_t, uint64_t>, Lease>;  // by ordinal and attempt

  absl::Status Take(const std::string& path, const Json& line, std::string* actor, Leases* leases);
  void TakeLease(const std::string& path, const Json& line, const std::string& actor, Leases* leases);
  void TakeAnswer(const std::string& path, const Json& line, const std::string& actor, const Leases& leases);
  // A new entry of a group that is asked for.
  v1::TraceEntry* Add(uint64_t ordinal, uint64_t attempt, const Lease& lease, const Json& line,
                      const std::string& actor, const std::string& path);

  v1::TraceResponse* const trace_;
  std::map<uint64_t, v1::GroupTrace*> groups_;
  struct Found {
    std::string job;
    uint64_t ordinal = 0;
    v1::TraceEntry entry;
  };
  std::deque<Found> found_;
  std::set<std::string> jobs_;
  std::map<std::string, Leases> leases_;   // by folder: an actor's
  std::map<std::string, int64_t> before_;  // by folder: number of the last file
  JournalNotes notes_;
};

absl::Status Reader::Read(const std::string& path) {
  const std::string folder = path.substr(0, path.rfind('/') + 1);
  const int64_t number = NumberOf(path);
  const auto before = before_.find(folder);
  if (before != before_.end() && number != before->second + 1) {
    notes_.gaps.push_back(absl::StrCat(path, " does not follow on file ", before->second));
  }
  if (before == before_.end() && number > 1) notes_.gaps.push_back(absl::StrCat("before ", path, " files are gone"));
  before_[folder] = number;
  const absl::StatusOr<std::string> text = ReadFile(path, kMaxFileBytes);
  if (!text.ok()) return text.status();
  ++notes_.files;
  std::string actor;
  for (const absl::string_view line : absl::StrSplit(*text, '\n', absl::SkipEmpty())) {
    const Json json = Parse(line);
    if (json.empty()) {
      ++notes_.torn;
      continue;
    }
    ++notes_.lines;
    SLUICE_RETURN_IF_ERROR(Take(path, json, &actor, &leases_[folder]));
  }
  return absl::OkStatus();
}

absl::Status Reader::Take(const std::string& path, const Json& line, std::string* actor, Leases* leases) {
  const std::string event = Text(line, "event");
  if (event == "file") {
    *actor = Text(line, "actor");
    if (Number(line, "format") == kFormat) return absl::OkStatus();
    return absl::InvalidArgumentError(absl::StrCat("'", path, "' is a journal of format ", Number(line, "format"),
                                                   "; this release reads format ", kFormat));
  }
  if (event == "dropped") {
    notes_.gaps.push_back(absl::StrCat(path, " lacks ", Number(line, "lines"), " lines"));
  } else if (event == "accepted" || event == "refused") {
    TakeAnswer(path, line, *actor, *leases);
  } else {
    TakeLease(path, line, *actor, leases);
  }
  return absl::OkStatus();
}

void Reader::TakeLease(const std::string& path, const Json& line, const std::string& actor, Leases* leases) {
  const Lease lease{Text(line, "job"), Number(line, "epoch"), Number(line, "lease")};
  jobs_.insert(lease.job);
  const auto groups = line.find("groups");
  if (groups == line.end() || !groups->is_array()) return;
  for (const Json& group : *groups) {
    if (!group.is_array() || group.size() < 2 || !group[0].is_number_unsigned() || !group[1].is_number_unsigned()) {
      continue;
    }
    const auto ordinal = group[0].get<uint64_t>();
    const auto attempt = group[1].get<uint64_t>();
    if (groups_.count(ordinal) == 0) continue;
    (*leases)[{ordinal, attempt}] = lease;
    v1::TraceEntry* const entry = Add(ordinal, attempt, lease, line, actor, path);
    if (entry->event() == "leased") {
      entry->set_text(absl::StrCat("to be sampled under version ", Number(line, "version"), " or a later one"));
    } else if (entry->event() == "sampled") {
      entry->set_policy_version(Number(line, "version"));
    } else if (entry->event() == "scored") {
      entry->set_ranker(Text(line, "ranker"));
      if (group.size() > 2 && group[2].is_string()) entry->set_scores(group[2].get<std::string>());
    } else if (entry->event() == "gave_back") {
      entry->set_reason(Text(line, "reason"));
    }
  }
}

void Reader::TakeAnswer(const std::string& path, const Json& line, const std::string& actor, const Leases& leases) {
  const auto group = line.find("group");
  if (group == line.end() || !group->is_array() || group->size() != 2 || !(*group)[0].is_number_unsigned() ||
      !(*group)[1].is_number_unsigned()) {
    return;
  }
  const auto ordinal = (*group)[0].get<uint64_t>();
  const auto attempt = (*group)[1].get<uint64_t>();
  const auto lease = leases.find({ordinal, attempt});
  if (lease == leases.end()) return;  // of another group, or its lease is in a file that is gone
  Add(ordinal, attempt, lease->second, line, actor, path)->set_reason(Text(line, "reason"));
}

v1::TraceEntry* Reader::Add(uint64_t ordinal, uint64_t attempt, const Lease& lease, const Json& line,
                            const std::string& actor, const std::string& path) {
  v1::TraceEntry* const entry = &found_.emplace_back(Found{lease.job, ordinal, {}}).entry;
  SetTime(absl::FromUnixMicros(static_cast<int64_t>(Number(line, "time_us"))), entry->mutable_time());
  entry->set_event(Text(line, "event"));
  entry->set_source(path);
  entry->set_actor(actor);
  entry->set_attempt(static_cast<uint32_t>(attempt));
  entry->set_lease(lease.lease);
  entry->set_epoch(lease.epoch);
  return entry;
}

absl::Status Reader::Settle(OtherJob other_job) {
  std::string job = trace_->job_id();
  if (jobs_.count(job) == 0 && jobs_.size() == 1 && other_job == OtherJob::kOnlyOne) job = *jobs_.begin();
  if (!jobs_.empty() && jobs_.count(job) == 0) {
    return absl::InvalidArgumentError(absl::StrCat("the journals are of ", absl::StrJoin(jobs_, ", "), " and not of ",
                                                   trace_->job_id(), "; name those of the actors that worked for it"));
  }
  std::set<uint64_t> named;
  for (Found& found : found_) {
    if (found.job != job) continue;
    named.insert(found.ordinal);
    *groups_.at(found.ordinal)->add_entries() = std::move(found.entry);
  }
  for (v1::GroupTrace& group : *trace_->mutable_groups()) {
    auto* const gaps = group.mutable_unknown();
    const auto actor_gap =
        std::find_if(gaps->begin(), gaps->end(), [](const v1::TraceGap& gap) { return gap.what() == kActorGap; });
    if (actor_gap != gaps->end() && named.count(group.ordinal()) > 0) {
      gaps->erase(actor_gap);
    } else if (actor_gap != gaps->end()) {
      actor_gap->set_why(absl::StrCat("none of the ", notes_.files, " journals names it",
                                      notes_.gaps.empty() && notes_.torn == 0 ? "" : ", and lines are missing there"));
      actor_gap->set_remedy("add the journals of the job's other actors, each with --journal");
    }
    OrderEntries(&group);
  }
  return absl::OkStatus();
}

}  // namespace

std::string JournalNotes::Text() const {
  // The first few say enough.
  constexpr size_t kShown = 3;
  std::string text = absl::StrCat("journals: ", lines, " lines in ", files, " files");
  if (torn > 0) absl::StrAppend(&text, ", ", torn, " torn ones passed over");
  for (size_t i = 0; i < std::min(kShown, gaps.size()); ++i) absl::StrAppend(&text, "; ", gaps[i]);
  if (gaps.size() > kShown) absl::StrAppend(&text, "; and ", gaps.size() - kShown, " more gaps");
  return text;
}

absl::StatusOr<JournalNotes> AddJournals(const std::vector<std::string>& paths, OtherJob other_job,
                                         v1::TraceResponse* trace) {
  // By where they really are: a file that two paths name is read once.
  std::map<std::string, std::string> files;
  for (const std::string& path : paths) {
    SLUICE_ASSIGN_OR_RETURN(const std::vector<std::string> found, FilesAt(path));
    for (const std::string& file : found) {
      std::error_code error;
      const std::filesystem::path place = std::filesystem::canonical(file, error);
      files.emplace(error ? file : place.string(), file);
    }
  }
  Reader reader(trace);
  for (const auto& [place, path] : files) SLUICE_RETURN_IF_ERROR(reader.Read(path));
  SLUICE_RETURN_IF_ERROR(reader.Settle(other_job));
  return std::move(reader.notes());
}

}  // namespace sluice
