// What became of single groups of a job: the coordinator's trace and what journals at hand add to it.
#include "absl/strings/str_cat.h"
#include "client/cli/commands.h"
#include "common/trace/trace_journals.h"
#include "common/trace/trace_text.h"

namespace sluice::client {

using nlohmann::ordered_json;

int Commands::Trace(const TraceFlags& flags) {
  return WithJob(flags.job, [&](const std::string& id) {
    v1::TraceRequest request;
    request.set_job_id(id);
    request.mutable_ordinals()->Add(flags.ordinals.begin(), flags.ordinals.end());
    absl::StatusOr<v1::TraceResponse> trace = client_->Trace(request);
    if (!trace.ok()) return Fail(trace.status());
    if (!flags.journals.empty()) {
      const absl::StatusOr<JournalNotes> notes = AddJournals(flags.journals, OtherJob::kRefused, &*trace);
      if (!notes.ok()) return Fail(notes.status());
      Talk(notes->Text());
    }
    ordered_json groups = ordered_json::array();
    for (const v1::GroupTrace& group : trace->groups()) groups.push_back(TraceJson(group));
    printer_.List("groups", groups, "ordinal", TraceText(*trace, absl::LocalTimeZone()));
    return 0;
  });
}

std::vector<std::string> FolderTraceArguments(const TraceFlags& flags, bool as_json) {
  std::vector<std::string> arguments = {"trace", flags.job};
  for (const uint64_t ordinal : flags.ordinals) arguments.push_back(absl::StrCat(ordinal));
  for (const std::string& journal : flags.journals) arguments.push_back(absl::StrCat("--journal=", journal));
  if (as_json) arguments.insert(arguments.end(), {"-o", "json"});
  return arguments;
}

}  // namespace sluice::client
