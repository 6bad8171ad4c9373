// sluicectl: submits and follows jobs. Wiring only.

#include <unistd.h>

#include <CLI/CLI.hpp>
#include <atomic>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <string>
#include <vector>

#include "client/cli/commands.h"
#include "client/cli/job_client.h"
#include "client/cli/token_command.h"
#include "common/log/log.h"
#include "common/rpc/channel.h"
#include "common/rpc/security_flags.h"
#include "common/status/exit_code.h"

namespace {

using sluice::client::Commands;
using sluice::client::Console;
using sluice::client::OutputFormat;

std::atomic<bool> interrupted{false};

// The first ctrl-C detaches; a second one ends the process at once.
void OnInterrupt(int) {
  interrupted = true;
  std::signal(SIGINT, SIG_DFL);
}

constexpr char kFooter[] =
    "Ports by custom: coordinator 7070, reward server 7080, learner ranks 7090; metrics one above each.\n"
    "Exit codes: 0 done, 1 failed, 2 usage or spec, 3 data or checkpoint, 4 permission or version, 10 preempted,\n"
    "11 transient (also: no coordinator), 12 cancelled, 13 held, 14 no space, 130 detached by ctrl-C.\n"
    "Of submit --watch, watch and wait they are the job's outcome.";

struct Flags {
  std::string server = "127.0.0.1:7070";
  double timeout_s = 5;
  sluice::SecurityFlags security;
  OutputFormat format = OutputFormat::kTable;
  sluice::client::SubmitFlags submit;
  std::string job;
  std::string key;
  bool markdown = false;
  bool follow = false;
  int limit = 100;
  uint64_t after = 0;
  double wait_timeout_s = 0;
  sluice::client::TokenFlags token;
};

int Refuse(const absl::Status& status) {
  std::fprintf(stderr, "sluicectl: %s\n", std::string(status.message()).c_str());
  return static_cast<int>(sluice::ExitCodeFor(status));
}

int Dispatch(const CLI::App& app, const Flags& flags) {
  if (app.got_subcommand("token")) return sluice::client::TokenCommand(flags.token);
  const absl::Status address = sluice::CheckAddress("--server", flags.server);
  if (!address.ok()) return Refuse(address);
  sluice::client::JobClientOptions options;
  options.server = flags.server;
  options.timeout = absl::Seconds(flags.timeout_s);
  const auto credentials = sluice::Credentials::Load({flags.security.tls, flags.security.token_file});
  if (!credentials.ok()) return Refuse(credentials.status());
  const sluice::RoleSet coordinator = {sluice::Role::kCoordinator};
  const auto channel = sluice::MakeChannel(flags.server, *credentials, coordinator);
  if (!channel.ok()) return Refuse(channel.status());
  options.explain = [&](const absl::Status& status) {
    return (*credentials)->Explain(status, flags.server, coordinator);
  };
  sluice::client::JobClient client(*channel, options);
  Console console;
  console.terminal = isatty(STDOUT_FILENO) == 1;
  console.format = flags.format;
  Commands commands(&client, console, &interrupted);
  if (app.got_subcommand("submit")) return commands.Submit(flags.submit);
  if (app.got_subcommand("validate")) return commands.Validate(flags.submit.spec_path, flags.submit.overrides);
  if (app.got_subcommand("list")) return commands.List(flags.limit);
  if (app.got_subcommand("describe")) return commands.Describe(flags.job);
  if (app.got_subcommand("watch")) return commands.Watch(flags.job, flags.after);
  if (app.got_subcommand("logs")) return commands.Logs(flags.job, flags.follow);
  if (app.got_subcommand("cancel")) return commands.Cancel(flags.job);
  if (app.got_subcommand("resume")) return commands.Resume(flags.job);
  if (app.got_subcommand("wait")) {
    return commands.Wait(flags.job,
                         flags.wait_timeout_s > 0 ? absl::Seconds(flags.wait_timeout_s) : absl::InfiniteDuration());
  }
  if (app.got_subcommand("config")) return commands.Explain(flags.key, flags.markdown);
  std::printf("sluicectl %s\n", SLUICE_VERSION);
  return 0;
}

void AddCommands(CLI::App* app, Flags* flags) {
  const auto add_job = [flags](CLI::App* command) {
    command->add_option("JOB", flags->job, "Id of the job, or its beginning if that is unique")->required();
  };
  const auto add_spec = [flags](CLI::App* command) {
    command->add_option("FILE", flags->submit.spec_path, "Job spec, YAML; -: standard input")->required();
    command->add_option("--set", flags->submit.overrides, "Override a key: --set rl.steps=50; may be repeated")
        ->allow_extra_args(false);
  };
  CLI::App* submit = app->add_subcommand("submit", "Submit a job; its id goes to standard output.");
  add_spec(submit);
  submit->add_flag("--watch", flags->submit.watch, "Follow it to its end; the exit code is its outcome");
  submit->add_option("--request-id", flags->submit.request_id, "Submitting again with the same id is the same job");
  submit->add_flag("--dry-run", flags->submit.dry_run,
                   "Print the spec with its defaults, what it will do and need; submit nothing");
  submit->add_option("--ranks", flags->submit.ranks, "Learner ranks that the plan of --dry-run reckons with")
      ->capture_default_str()
      ->check(CLI::Range(1, 4096));
  submit->add_option("--threads", flags->submit.threads, "Compute threads of a rank in that plan")
      ->capture_default_str()
      ->check(CLI::Range(1, 1024));
  add_spec(app->add_subcommand("validate", "Check a job spec; every mistake with its place."));
  app->add_subcommand("list", "List jobs, newest first.")
      ->add_option("--limit", flags->limit, "At most this many")
      ->capture_default_str()
      ->check(CLI::Range(1, 1000));
  add_job(app->add_subcommand("describe", "All about one job."));
  CLI::App* watch = app->add_subcommand("watch", "Follow a job to its end. Ctrl-C detaches; the job goes on.");
  add_job(watch);
  watch->add_option("--after", flags->after, "Only events after this number")->capture_default_str();
  CLI::App* logs = app->add_subcommand("logs", "Print a job's log lines.");
  add_job(logs);
  logs->add_flag("-f,--follow", flags->follow, "Go on until the job ends");
  add_job(app->add_subcommand("cancel", "Ask a job to end, with a checkpoint."));
  add_job(
      app->add_subcommand("resume", "Let a job that failed, was held or cancelled go on from its last checkpoint."));
  CLI::App* wait = app->add_subcommand("wait", "Wait for a job's end; the exit code is its outcome.");
  add_job(wait);
  wait->add_option("--for", flags->wait_timeout_s, "Give up after so many seconds (exit code 11); 0: never");
  CLI::App* config = app->add_subcommand("config", "About the job spec.");
  config->require_subcommand(1);
  CLI::App* explain = config->add_subcommand("explain", "Type, default, range and effect of keys.");
  explain->add_option("KEY", flags->key, "A key or section, such as rl.gate.tau; default: all");
  explain->add_flag("--markdown", flags->markdown, "As a reference page");
  CLI::App* token = app->add_subcommand("token", "Tokens of people.");
  token->require_subcommand(1);
  CLI::App* create = token->add_subcommand(
      "create",
      "Make a token, where the coordinator's file of tokens is: prints the secret, once, and keeps its digest.");
  create->add_option("NAME", flags->token.name, "Whose it is")->required();
  create->add_option("--tokens", flags->token.tokens, "The coordinator's --tokens; made if it is not there")
      ->required();
  create->add_option("--scopes", flags->token.scopes, "submit (own jobs), read (all jobs), admin; separated by commas")
      ->capture_default_str();
  create->add_option("--days", flags->token.days, "How long it opens anything")->capture_default_str();
  app->add_subcommand("inspect", "What is inside a model, data set or checkpoint (runs sluice-inspect).")
      ->prefix_command();
  app->add_subcommand("replay",
                      "What other gates would have admitted of a run's recorded groups (runs sluice-learner).")
      ->prefix_command();
  app->add_subcommand("advise", "What a run's recorded groups say of the ranker and the gate (runs sluice-learner).")
      ->prefix_command();
  app->add_subcommand("version", "Print the version.");
}

}  // namespace

int main(int argc, char** argv) {
  // Everything after these words belongs to another program, its options and --help too.
  const std::string word = argc > 1 ? argv[1] : "";
  if (word == "inspect") {
    return sluice::client::ExecBeside("sluice-inspect", std::vector<std::string>(argv + 2, argv + argc));
  }
  if (word == "replay" || word == "advise") {
    return sluice::client::ExecBeside("sluice-learner", std::vector<std::string>(argv + 1, argv + argc));
  }
  CLI::App app("Submits Sluice's jobs and follows them.");
  app.name("sluicectl");
  app.footer(kFooter);
  app.require_subcommand(1);
  app.fallthrough();
  Flags flags;
  app.add_option("--server", flags.server, "The coordinator, HOST:PORT")
      ->envname("SLUICE_SERVER")
      ->capture_default_str();
  app.add_option("--timeout", flags.timeout_s, "Seconds for one call, retries included")
      ->capture_default_str()
      ->check(CLI::Range(0.1, 3600.0));
  sluice::AddTlsFlags(&app, &flags.security);
  sluice::AddTokenFlag(&app, &flags.security);
  const std::map<std::string, OutputFormat> formats = {
      {"table", OutputFormat::kTable}, {"json", OutputFormat::kJson}, {"jsonl", OutputFormat::kJsonl}};
  app.add_option("-o,--output", flags.format, "table, json or jsonl (one JSON object a line)")
      ->transform(CLI::CheckedTransformer(formats, CLI::ignore_case).description(""));
  AddCommands(&app, &flags);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : static_cast<int>(sluice::ExitCode::kUsage);
  }
  sluice::InitLogging("sluicectl", sluice::LogFormat::kText, sluice::LogLevel::kWarning);
  std::signal(SIGINT, OnInterrupt);
  std::signal(SIGPIPE, SIG_DFL);  // `sluicectl list | head` ends quietly
  return Dispatch(app, flags);
}
