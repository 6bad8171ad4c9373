// The command line of sluicectl: one description, from which parsing, --help, completions, the man page and the
// reference page come.
#ifndef SLUICE_CLIENT_CLI_APP_H_
#define SLUICE_CLIENT_CLI_APP_H_

#include <CLI/CLI.hpp>
#include <atomic>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "client/cli/commands.h"
#include "client/cli/mirror_command.h"
#include "client/cli/token_command.h"
#include "common/rpc/security_flags.h"

namespace sluice::client {

struct Flags {
  std::string server;   // empty: the context's, else the default
  std::string context;  // empty: the current one
  double timeout_s = 5;
  SecurityFlags security;
  TokenFlags token;
  OutputFormat format = OutputFormat::kTable;
  bool quiet = false;
  bool no_color = false;
  SubmitFlags submit;
  ForkFlags fork;
  LogFlags logs;
  double since_s = 0;
  int rank = -1;
  MetricsFlags metrics;
  CompareFlags compare;
  MirrorFlags mirror;
  TraceFlags trace;
  std::string job, key, state, folder, which = "best", file, name, kind, shell, digest, path, context_name;
  std::vector<std::string> prefixes, pair;
  std::map<std::string, std::string> context_fields;
  bool markdown = false, follow = false, files = false, remote = false;
  int limit = 100;
  uint64_t after = 0;
  double wait_timeout_s = 0;
};

// `flags` outlives the app.
std::unique_ptr<CLI::App> MakeApp(Flags* flags);

// Words that start another program, with everything after them: options of sluicectl may stand before.
struct Handover {
  int word = -1;        // its place in argv; -1: this command line starts no other program
  std::string program;  // "sluice-inspect"
  bool keeps_word = false;
};
Handover FindHandover(const CLI::App& app, int argc, const char* const* argv);

// Runs the command that was parsed. `stop` is set by ctrl-C.
int Dispatch(const CLI::App& app, const Flags& flags, const std::atomic<bool>& stop);

}  // namespace sluice::client

#endif  // SLUICE_CLIENT_CLI_APP_H_
