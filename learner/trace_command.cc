#include "learner/trace_command.h"

#include <cstdio>
#include <nlohmann/json.hpp>

#include "common/status/status.h"
#include "common/trace/trace_journals.h"
#include "common/trace/trace_text.h"
#include "learner/rpc/trace_job.h"

namespace sluice::learner {
namespace {

// That of sluicectl's documents (client/cli/console.h), which this is one of.
constexpr int kSchemaVersion = 1;

}  // namespace

absl::Status TraceCommand(const TraceFlags& flags) {
  SLUICE_ASSIGN_OR_RETURN(v1::TraceResponse trace, TraceFolder(flags.run_folder, flags.ordinals));
  if (!flags.journals.empty()) {
    SLUICE_ASSIGN_OR_RETURN(const JournalNotes notes, AddJournals(flags.journals, OtherJob::kOnlyOne, &trace));
    std::fprintf(stderr, "%s\n", notes.Text().c_str());
  }
  std::string text = TraceText(trace, absl::LocalTimeZone());
  if (flags.json) {
    nlohmann::ordered_json document = {{"schema_version", kSchemaVersion}, {"groups", nlohmann::ordered_json::array()}};
    for (const v1::GroupTrace& group : trace.groups()) document["groups"].push_back(TraceJson(group));
    text = document.dump(2, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + "\n";
  }
  std::fwrite(text.data(), 1, text.size(), stdout);
  return absl::OkStatus();
}

}  // namespace sluice::learner
