// The commands of sluicectl. Data goes to `out`, talk to `err`; each returns the process's exit code by its status,
// or the job's own exit code where a command's result is a job's outcome. The sources are by theme: submit_commands.cc,
// job_commands.cc, follow_commands.cc, trace_command.cc, file_commands.cc, data_commands.cc, config_commands.cc,
// doctor.cc.
#ifndef SLUICE_CLIENT_CLI_COMMANDS_H_
#define SLUICE_CLIENT_CLI_COMMANDS_H_

#include <atomic>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "client/cli/console.h"
#include "client/cli/contexts.h"
#include "client/cli/job_client.h"

namespace sluice::client {

// Exit code of a command that ctrl-C detached from its job, as shells have it: the job goes on.
inline constexpr int kDetached = 130;

struct SubmitFlags {
  std::string spec_path;               // "-": standard input
  std::vector<std::string> overrides;  // --set
  std::string request_id;              // empty: a random one
  bool watch = false;
  std::string dry_run;  // empty: submit; "client": plan here, "server": plan and check there
  int ranks = 1;        // that the plan of a dry run on the client reckons with
  int threads = 1;      // of each of them
};

struct ForkFlags {
  std::string job;
  std::vector<std::string> overrides;
  std::string request_id;
  std::string checkpoint;  // "step-00000120"; empty: the last
  bool watch = false;
};

struct LogFlags {
  std::string role;  // empty: all
  std::optional<int> rank;
  std::string level;                                // lines at or above it; empty: all
  std::string grep;                                 // POSIX extended expression; empty: all
  absl::Duration since = absl::InfiniteDuration();  // no older lines
  int tail = -1;                                    // only so many of the last; -1: all
  bool follow = false;
};

struct MetricsFlags {
  std::string job;
  std::vector<std::string> names;  // empty: the latest value of each
  bool last = false;               // of the named ones, the last row alone
  bool follow = false;
};

struct CompareFlags {
  std::vector<std::string> arms;
  std::vector<std::string> against;
  std::vector<std::string> metrics;
  int resamples = 2000;
  double confidence = 0.95;
  uint64_t seed = 1;
};

struct TraceFlags {
  std::string job;  // with a '/': the folder of a run
  std::vector<uint64_t> ordinals;
  std::vector<std::string> journals;  // files or folders of actors' journals
};

class Commands {
 public:
  // `client` and `stop` outlive the commands. `stop` is set by ctrl-C.
  Commands(JobClient* client, Console console, const std::atomic<bool>* stop)
      : client_(client), printer_(console), stop_(*stop) {}

  // ---- submit_commands.cc
  int Submit(const SubmitFlags& flags);
  int Fork(const ForkFlags& flags);
  // An evaluate job of another job's model on that job's data.
  int Evaluate(const std::string& job, const SubmitFlags& flags);
  int Validate(const std::string& spec_path, const std::vector<std::string>& overrides);

  // ---- job_commands.cc
  int List(int limit, const std::string& state);
  int Describe(const std::string& job);
  int Cancel(const std::string& job);
  int Pause(const std::string& job);
  int Kill(const std::string& job);
  int Resume(const std::string& job);
  int Delete(const std::string& job, bool files);

  // ---- follow_commands.cc
  int Watch(const std::string& job, uint64_t after);
  int Logs(const std::string& job, const LogFlags& flags);
  int Events(const std::string& job, uint64_t after, bool follow);
  int Metrics(const MetricsFlags& flags);
  // Waits for the job's end in silence; `timeout` InfiniteDuration: as long as it takes.
  int Wait(const std::string& job, absl::Duration timeout);
  // Jobs, ranks and rates on one screen, again and again on a terminal, once elsewhere.
  int Top();

  // ---- trace_command.cc
  // What became of groups, by their ordinals; flags.job is a job's.
  int Trace(const TraceFlags& flags);

  // ---- file_commands.cc
  int Artifacts(const std::string& job);
  // Files whose paths begin with one of `prefixes` (none: all) into `folder`; what is there whole is not fetched again.
  int Download(const std::string& job, const std::vector<std::string>& prefixes, const std::string& folder);
  // The model of a job in Hugging Face layout; `which`: "best" or "final".
  int Export(const std::string& job, const std::string& which, const std::string& folder);
  int Report(const std::string& job, const std::string& file);
  int Compare(const CompareFlags& flags);

  // ---- data_commands.cc
  int PushData(const std::string& path, const std::string& name);
  int ListData();
  int RemoveData(const std::string& digest);

  // ---- config_commands.cc
  // Keys at or below `path`; all if it is empty.
  int Explain(const std::string& path, bool markdown);
  int Schema();
  int InitConfig(const std::string& kind);
  // Effective specs of two files or jobs, key by key. 0 if they are equal, 1 if not.
  int Diff(const std::string& a, const std::string& b);
  int Version(bool remote);

  // ---- doctor.cc
  int Doctor();

 private:
  int WatchResolved(const std::string& job_id, uint64_t after, std::FILE* story, bool terminal);
  int Detached(const std::string& job_id, uint64_t sequence);
  int Submitted(const std::string& job_id, bool existed, bool watch);
  int DryRunOnServer(const v1::JobSpec& given, int threads);
  absl::StatusOr<v1::JobSpec> SpecOf(const std::string& file_or_job);
  std::string TopText();
  absl::Status DownloadFile(const std::string& job_id, const v1::Artifact& artifact, const std::string& target);
  absl::Status DownloadAll(const std::string& job_id, const std::vector<v1::Artifact>& files, const std::string& strip,
                           const std::string& folder);
  int Fail(const absl::Status& status) const { return printer_.Fail(status); }
  void Out(const std::string& text) const { printer_.Out(text); }
  void Talk(const std::string& text) const { printer_.Talk(text); }
  const Console& console() const { return printer_.console(); }
  // The full id, then `use` with it; the error's exit code if there is no such job.
  template <typename Use>
  int WithJob(const std::string& job, Use use) {
    const absl::StatusOr<std::string> id = client_->ResolveId(job);
    return id.ok() ? use(*id) : Fail(id.status());
  }

  JobClient* const client_;
  const Printer printer_;
  const std::atomic<bool>& stop_;
};

// What `sluice-learner` is told to trace groups of a run's folder.
std::vector<std::string> FolderTraceArguments(const TraceFlags& flags, bool as_json);

// Replaces this process by the program `name` in the folder of this one, with `arguments`. Returns an exit code only if
// that fails.
int ExecBeside(const std::string& name, const std::vector<std::string>& arguments);

}  // namespace sluice::client

#endif  // SLUICE_CLIENT_CLI_COMMANDS_H_
