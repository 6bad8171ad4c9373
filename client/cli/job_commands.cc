// Looking at jobs, and telling them to stop and to go on.
#include <unistd.h>

#include <cerrno>
#include <climits>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "client/cli/commands.h"
#include "client/cli/format.h"
#include "common/status/exit_code.h"

namespace sluice::client {

int Commands::List(int limit, const std::string& state) {
  absl::StatusOr<v1::ListResponse> jobs = client_->List(limit);
  if (!jobs.ok()) return Fail(jobs.status());
  v1::ListResponse shown;
  nlohmann::ordered_json all = nlohmann::ordered_json::array();
  for (const v1::JobSummary& job : jobs->jobs()) {
    if (!state.empty() && StateText(job.state()) != state) continue;
    *shown.add_jobs() = job;
    all.push_back(SummaryJson(job));
  }
  if (console().for_people() && shown.jobs().empty()) {
    Talk(state.empty() ? "no jobs yet; 'sluicectl submit FILE' makes one" : absl::StrCat("no job is ", state));
    return 0;
  }
  printer_.List("jobs", all, "job_id",
                JobTable(shown, absl::Now(), console().format == OutputFormat::kWide, console().color));
  return 0;
}

int Commands::Describe(const std::string& job) {
  return WithJob(job, [&](const std::string& id) {
    const absl::StatusOr<v1::DescribeResponse> described = client_->Describe(id);
    if (!described.ok()) return Fail(described.status());
    printer_.One(DescribeJson(*described), "job_id", DescribeText(*described, absl::Now()));
    return 0;
  });
}

int Commands::Cancel(const std::string& job) {
  return WithJob(job, [&](const std::string& id) {
    const absl::Status status = client_->Cancel(id);
    if (!status.ok()) return Fail(status);
    Talk(absl::StrCat(id, ": cancelling; a running job ends at its next step, with a checkpoint"));
    return 0;
  });
}

int Commands::Pause(const std::string& job) {
  return WithJob(job, [&](const std::string& id) {
    const absl::Status status = client_->Pause(id);
    if (!status.ok()) return Fail(status);
    Talk(absl::StrCat(id,
                      ": pausing; a running job stops at its next step, with a checkpoint. Go on with: sluicectl "
                      "resume ",
                      id));
    return 0;
  });
}

int Commands::Kill(const std::string& job) {
  return WithJob(job, [&](const std::string& id) {
    const absl::StatusOr<v1::KillResponse> killed = client_->Kill(id);
    if (!killed.ok()) return Fail(killed.status());
    Talk(absl::StrCat(id, ": killed; what it did since ",
                      killed->last_checkpoint().empty() ? "its start" : killed->last_checkpoint(), " is lost"));
    return 0;
  });
}

int Commands::Resume(const std::string& job) {
  return WithJob(job, [&](const std::string& id) {
    const absl::StatusOr<v1::ResumeResponse> resumed = client_->Resume(id);
    if (!resumed.ok()) return Fail(resumed.status());
    Talk(absl::StrCat(
        id, ": waits for the group, and goes on from ",
        resumed->last_checkpoint().empty() ? "the start, since it has no checkpoint" : resumed->last_checkpoint(),
        ". Follow it with: sluicectl watch ", id));
    return 0;
  });
}

int Commands::Delete(const std::string& job, bool files) {
  return WithJob(job, [&](const std::string& id) {
    const absl::StatusOr<v1::DeleteResponse> deleted = client_->Delete(id, files);
    // It was there a moment ago: an answer that got lost was a good one.
    if (!deleted.ok() && !absl::IsNotFound(deleted.status())) return Fail(deleted.status());
    const std::string folder = deleted.ok() ? deleted->run_folder() : "";
    Talk(absl::StrCat(id, ": deleted",
                      files ? ", with its run folder"
                      : folder.empty()
                          ? ""
                          : absl::StrCat("; its run folder ", folder, " is left (--files removes it too)")));
    return 0;
  });
}

int ExecBeside(const std::string& name, const std::vector<std::string>& arguments) {
  char self[PATH_MAX];
  const ssize_t length = readlink("/proc/self/exe", self, sizeof(self));
  std::string program = name;
  if (length > 0) {
    const std::string path(self, static_cast<size_t>(length));
    program = absl::StrCat(path.substr(0, path.rfind('/')), "/", name);
  }
  std::vector<char*> argv = {program.data()};
  std::vector<std::string> copies = arguments;
  for (std::string& argument : copies) argv.push_back(argument.data());
  argv.push_back(nullptr);
  execv(program.c_str(), argv.data());
  std::fprintf(stderr, "sluicectl: cannot run %s: %s; it is installed beside sluicectl\n", program.c_str(),
               std::strerror(errno));
  return static_cast<int>(ExitCode::kFailed);
}

}  // namespace sluice::client
