#include "actor/journal/journal.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>
#include <variant>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/strings/strip.h"
#include "absl/time/clock.h"
#include "common/log/log.h"
#include "common/status/status.h"
#include "common/types/score_status_name.h"

namespace sluice::actor {
namespace {

constexpr int kFormat = 1;
constexpr size_t kCheckDigits = 8;
constexpr char kPrefix[] = "journal-";
constexpr char kSuffix[] = ".jsonl";

std::string Quoted(absl::string_view text) {
  return nlohmann::json(std::string(text)).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

// The number of a journal's file; 0: not one.
int64_t NumberOf(absl::string_view name) {
  int64_t number = 0;
  if (!absl::ConsumePrefix(&name, kPrefix) || !absl::ConsumeSuffix(&name, kSuffix)) return 0;
  return absl::SimpleAtoi(name, &number) && number > 0 ? number : 0;
}

std::string NameOf(int64_t number) { return absl::StrFormat("%s%08d%s", kPrefix, number, kSuffix); }

std::string LeaseFields(absl::string_view event, const LeaseBlock& block) {
  return absl::StrCat("{\"event\":\"", event, "\",\"job\":", Quoted(block.job_id), ",\"epoch\":", block.epoch,
                      ",\"lease\":", block.lease_id);
}

std::string GroupsField(const LeaseBlock& block) {
  const auto group = [](std::string* out, const LeasedPrompt& leased) {
    absl::StrAppend(out, "[", leased.prompt.ordinal, ",", leased.prompt.attempt, "]");
  };
  return absl::StrCat(",\"groups\":[", absl::StrJoin(block.prompts, ",", group), "]");
}

absl::string_view HowItFared(const PromptOutcome& outcome) {
  const auto* group = std::get_if<ScoredGroup>(&outcome.result);
  if (group == nullptr) return "abandoned";
  return ScoreStatusName(group->score_status);
}

std::string RankerOf(absl::Span<const PromptOutcome> outcomes) {
  for (const PromptOutcome& outcome : outcomes) {
    const auto* group = std::get_if<ScoredGroup>(&outcome.result);
    if (group != nullptr && !group->ranker_version.empty()) return group->ranker_version;
  }
  return "";
}

}  // namespace

absl::StatusOr<std::unique_ptr<Journal>> Journal::Open(JournalOptions options) {
  SLUICE_CHECK(options.wall && options.now, "a journal needs clocks");
  std::unique_ptr<Journal> journal(new Journal(std::move(options)));
  const std::string& folder = journal->options_.folder;
  SLUICE_RETURN_IF_ERROR(MakeDirectories(folder));
  SLUICE_ASSIGN_OR_RETURN(
      journal->lock_, FileLock::Acquire(JoinPath(folder, "lock"), absl::StrCat("the journal folder '", folder, "'")));
  SLUICE_ASSIGN_OR_RETURN(const std::vector<std::string> names, ListDirectory(folder));
  for (const std::string& name : names) journal->number_ = std::max(journal->number_, NumberOf(name));
  SLUICE_RETURN_IF_ERROR(journal->OpenNext());
  return journal;
}

absl::Status Journal::OpenNext() {
  if (file_ != nullptr && unsynced_) SLUICE_RETURN_IF_ERROR(file_->Sync());
  unsynced_ = false;
  // Never an older file: its last line may lack its end.
  const std::string path = JoinPath(options_.folder, NameOf(number_ + 1));
  SLUICE_ASSIGN_OR_RETURN(std::unique_ptr<AppendFile> next, AppendFile::Open(path));
  file_ = std::move(next);
  ++number_;
  file_bytes_ = 0;
  torn_ = false;
  SLUICE_ASSIGN_OR_RETURN(const std::vector<std::string> names, ListDirectory(options_.folder));
  for (const std::string& name : names) {
    const int64_t number = NumberOf(name);
    if (number > 0 && number <= number_ - options_.max_files) {
      SLUICE_RETURN_IF_ERROR(RemoveAll(JoinPath(options_.folder, name)));
    }
  }
  return absl::OkStatus();
}

// ------------------------------------------------------------------------------------------------------ adding

void Journal::Leased(const LeaseBlock& block) {
  if (block.kind != LeaseKind::kRollout) return;
  Add(absl::StrCat(LeaseFields("leased", block), ",\"version\":", block.policy_version, GroupsField(block)));
}

void Journal::Sampled(const LeaseBlock& block, uint64_t policy_version) {
  if (block.kind != LeaseKind::kRollout) return;
  Add(absl::StrCat(LeaseFields("sampled", block), ",\"version\":", policy_version, GroupsField(block)));
}

void Journal::Scored(const LeaseBlock& block, absl::Span<const PromptOutcome> outcomes) {
  if (block.kind != LeaseKind::kRollout) return;
  const auto group = [](std::string* out, const PromptOutcome& outcome) {
    absl::StrAppend(out, "[", outcome.ordinal, ",", outcome.attempt, ",\"", HowItFared(outcome), "\"]");
  };
  Add(absl::StrCat(LeaseFields("scored", block), ",\"ranker\":", Quoted(RankerOf(outcomes)), ",\"groups\":[",
                   absl::StrJoin(outcomes, ",", group), "]"));
}

void Journal::SendingResults(const LeaseBlock& block, absl::Span<const PromptOutcome> outcomes) {
  if (block.kind != LeaseKind::kRollout) return;
  const auto group = [](std::string* out, const PromptOutcome& outcome) {
    absl::StrAppend(out, "[", outcome.ordinal, ",", outcome.attempt, "]");
  };
  const uint64_t number =
      Add(absl::StrCat(LeaseFields("sent", block), ",\"groups\":[", absl::StrJoin(outcomes, ",", group), "]"));
  const absl::Time until = absl::Now() + options_.longest_wait;
  MutexLock lock(&mutex_);
  while (!lagging_ && settled_ < number) {
    const absl::Duration left = until - absl::Now();
    if (left <= absl::ZeroDuration()) {
      lagging_ = true;
      return;
    }
    changed_.WaitFor(&mutex_, left);
  }
}

void Journal::GaveBack(const LeaseBlock& block, absl::string_view reason) {
  if (block.kind != LeaseKind::kRollout) return;
  Add(absl::StrCat(LeaseFields("gave_back", block), ",\"reason\":", Quoted(reason), GroupsField(block)));
}

void Journal::Answered(uint64_t ordinal, uint32_t attempt, bool accepted, absl::string_view reason) {
  std::string object =
      absl::StrCat("{\"event\":\"", accepted ? "accepted" : "refused", "\",\"group\":[", ordinal, ",", attempt, "]");
  if (!reason.empty()) absl::StrAppend(&object, ",\"reason\":", Quoted(reason));
  Add(std::move(object));
}

uint64_t Journal::Add(std::string object) {
  absl::StrAppend(&object, ",\"time_us\":", absl::ToUnixMicros(options_.wall()));
  MutexLock lock(&mutex_);
  if (closed_ || queue_.size() >= options_.max_queued_lines) {
    ++dropped_;
    return 0;
  }
  queue_.push_back(std::move(object));
  changed_.NotifyAll();
  return ++added_;
}

void Journal::Close() {
  MutexLock lock(&mutex_);
  closed_ = true;
  changed_.NotifyAll();
}

uint64_t Journal::dropped() const {
  MutexLock lock(&mutex_);
  return dropped_;
}

// ----------------------------------------------------------------------------------------------------- writing

std::string Journal::Closed(absl::string_view object) const {
  return absl::StrCat(object, ",\"check\":\"", Sha256(object).substr(0, kCheckDigits), "\"}");
}

absl::Status Journal::Write(const std::deque<std::string>& lines) {
  if (file_ == nullptr || file_bytes_ >= options_.max_file_bytes) SLUICE_RETURN_IF_ERROR(OpenNext());
  std::string text;
  if (torn_) text = "\n";  // ends what a full disk cut off
  if (file_bytes_ == 0) {
    absl::StrAppend(&text,
                    Closed(absl::StrCat("{\"event\":\"file\",\"format\":", kFormat, ",\"number\":", number_,
                                        ",\"actor\":", Quoted(options_.actor_id))),
                    "\n");
  }
  const uint64_t dropped_now = dropped();
  if (dropped_now > told_dropped_) {
    absl::StrAppend(&text, Closed(absl::StrCat("{\"event\":\"dropped\",\"lines\":", dropped_now - told_dropped_)),
                    "\n");
  }
  for (const std::string& line : lines) absl::StrAppend(&text, Closed(line), "\n");
  text.pop_back();  // Append ends the line
  torn_ = true;
  SLUICE_RETURN_IF_ERROR(file_->Append(text));
  torn_ = false;
  told_dropped_ = dropped_now;
  file_bytes_ += static_cast<int64_t>(text.size()) + 1;
  unsynced_ = true;
  return absl::OkStatus();
}

void Journal::CountDropped(uint64_t lines, const absl::Status& why) {
  {
    MutexLock lock(&mutex_);
    dropped_ += lines;
    if (std::exchange(told_, true)) return;
  }
  LogWarning("the journal cannot be written; the actor goes on, and counts the lines that are missing",
             {{"folder", options_.folder}, {"error", why.message()}});
}

bool Journal::WriteOnce() {
  std::deque<std::string> lines;
  bool closed = false;
  {
    MutexLock lock(&mutex_);
    lines.swap(queue_);
    closed = closed_;
  }
  if (!lines.empty() || dropped() > told_dropped_) {
    if (const absl::Status status = Write(lines); !status.ok()) CountDropped(lines.size(), status);
  }
  {
    MutexLock lock(&mutex_);
    settled_ += lines.size();
    if (queue_.empty()) lagging_ = false;
    changed_.NotifyAll();
  }
  if (unsynced_ && (closed || options_.now() - synced_ >= options_.sync_every)) {
    if (const absl::Status status = file_->Sync(); !status.ok()) CountDropped(0, status);
    unsynced_ = false;
    synced_ = options_.now();
  }
  return !closed || !lines.empty();
}

void Journal::Run() {
  while (WriteOnce()) {
    MutexLock lock(&mutex_);
    if (queue_.empty() && !closed_) changed_.WaitFor(&mutex_, options_.sync_every);
  }
  if (const uint64_t lines = dropped(); lines > 0) LogWarning("lines are missing in the journal", {{"lines", lines}});
}

}  // namespace sluice::actor
