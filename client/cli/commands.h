// The commands of sluicectl. Data goes to `out`, talk to `err`; each returns the process's exit code by its status,
// or the job's own exit code where a command's result is a job's outcome.
#ifndef SLUICE_CLIENT_CLI_COMMANDS_H_
#define SLUICE_CLIENT_CLI_COMMANDS_H_

#include <atomic>
#include <cstdint>
#include <cstdio>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "client/cli/job_client.h"

namespace sluice::client {

// Exit code of a command that ctrl-C detached from its job, as shells have it: the job goes on.
inline constexpr int kDetached = 130;

enum class OutputFormat { kTable, kJson, kJsonl };

struct Console {
  std::FILE* out = stdout;
  std::FILE* err = stderr;
  bool terminal = false;  // `out` is one: progress is a bar
  OutputFormat format = OutputFormat::kTable;
};

struct SubmitFlags {
  std::string spec_path;               // "-": standard input
  std::vector<std::string> overrides;  // --set
  std::string request_id;              // empty: a random one
  bool watch = false;
  bool dry_run = false;
  int ranks = 1;    // that the plan of a dry run reckons with
  int threads = 1;  // of each of them
};

class Commands {
 public:
  // `client` and `stop` outlive the commands. `stop` is set by ctrl-C.
  Commands(JobClient* client, Console console, const std::atomic<bool>* stop)
      : client_(client), console_(console), stop_(*stop) {}

  int Submit(const SubmitFlags& flags);
  int Validate(const std::string& spec_path, const std::vector<std::string>& overrides);
  int List(int limit);
  int Describe(const std::string& job);
  int Watch(const std::string& job, uint64_t after);
  int Logs(const std::string& job, bool follow);
  int Cancel(const std::string& job);
  int Resume(const std::string& job);
  // Waits for the job's end in silence; `timeout` InfiniteDuration: as long as it takes.
  int Wait(const std::string& job, absl::Duration timeout);
  // Keys at or below `path`; all if it is empty.
  int Explain(const std::string& path, bool markdown);

 private:
  int WatchResolved(const std::string& job_id, uint64_t after);
  int Detached(const std::string& job_id, uint64_t sequence);
  // Prints the error and returns its exit code.
  int Fail(const absl::Status& status) const;
  void Out(const std::string& text) const;
  void Talk(const std::string& text) const;

  JobClient* const client_;
  const Console console_;
  const std::atomic<bool>& stop_;
};

// Replaces this process by the program `name` in the folder of this one, with `arguments`. Returns an exit code only if
// that fails.
int ExecBeside(const std::string& name, const std::vector<std::string>& arguments);

}  // namespace sluice::client

#endif  // SLUICE_CLIENT_CLI_COMMANDS_H_
