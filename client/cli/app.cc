#include "client/cli/app.h"

#include <unistd.h>

#include <cstdlib>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "client/cli/completion.h"
#include "client/cli/contexts.h"
#include "common/rpc/channel.h"
#include "common/status/exit_code.h"
#include "common/status/status.h"

namespace sluice::client {
namespace {

constexpr char kDefaultServer[] = "127.0.0.1:7070";
constexpr char kFooter[] =
    "Ports by custom: coordinator 7070, reward server 7080, learner ranks 7090; metrics one above each.\n"
    "Exit codes: 0 done, 1 failed, 2 usage or spec, 3 data or checkpoint, 4 permission or version, 10 preempted,\n"
    "11 transient (also: no coordinator), 12 cancelled, 13 held, 14 no space, 130 detached by ctrl-C.\n"
    "Of submit --watch, watch and wait they are the job's outcome. Data go to standard output, all else to standard "
    "error.";

void AddJob(CLI::App* command, std::string* job) {
  command->add_option("JOB", *job, "Id of the job, or its beginning if that is unique")->required();
}

void AddOverrides(CLI::App* command, std::vector<std::string>* overrides) {
  command->add_option("--set", *overrides, "Override a key: --set rl.steps=50; may be repeated")
      ->allow_extra_args(false);
}

void AddRequest(CLI::App* command, std::string* request_id, bool* watch) {
  command->add_flag("--watch", *watch, "Follow it to its end; the exit code is its outcome");
  command->add_option("--request-id", *request_id, "Doing it again with the same id is the same job");
}

void AddMaking(CLI::App* app, Flags* flags) {
  CLI::App* submit = app->add_subcommand("submit", "Submit a job; its id goes to standard output.");
  submit->add_option("FILE", flags->submit.spec_path, "Job spec, YAML; -: standard input")->required();
  AddOverrides(submit, &flags->submit.overrides);
  AddRequest(submit, &flags->submit.request_id, &flags->submit.watch);
  submit
      ->add_flag("--dry-run{client}", flags->submit.dry_run,
                 "Submit nothing: print the spec with its defaults, what it will do and need; =server: the "
                 "coordinator checks all that a submission meets, and tells the time that similar jobs took")
      ->check(CLI::IsMember({"client", "server"}));
  submit->add_option("--ranks", flags->submit.ranks, "Learner ranks that the plan of --dry-run=client reckons with")
      ->capture_default_str()
      ->check(CLI::Range(1, 4096));
  submit->add_option("--threads", flags->submit.threads, "Compute threads of a rank in that plan")
      ->capture_default_str()
      ->check(CLI::Range(1, 1024));
  CLI::App* validate = app->add_subcommand(
      "validate", "Check a job spec; every mistake with its place. -o wide: where each value comes from.");
  validate->add_option("FILE", flags->submit.spec_path, "Job spec, YAML; -: standard input")->required();
  AddOverrides(validate, &flags->submit.overrides);
  CLI::App* fork = app->add_subcommand(
      "fork", "A new job that begins with another job's checkpoint: the way when data or spec changed.");
  AddJob(fork, &flags->fork.job);
  AddOverrides(fork, &flags->fork.overrides);
  AddRequest(fork, &flags->fork.request_id, &flags->fork.watch);
  fork->add_option("--checkpoint", flags->fork.checkpoint, "Its name, such as step-00000120; default: the last one");
  CLI::App* evaluate = app->add_subcommand("evaluate", "Evaluate a job's model on its data, as a job.");
  AddJob(evaluate, &flags->job);
  AddOverrides(evaluate, &flags->submit.overrides);
  AddRequest(evaluate, &flags->submit.request_id, &flags->submit.watch);
}

void AddJobs(CLI::App* app, Flags* flags) {
  CLI::App* list = app->add_subcommand("list", "List jobs, newest first.");
  list->add_option("--limit", flags->limit, "Look at this many")->capture_default_str()->check(CLI::Range(1, 1000));
  list->add_option("--state", flags->state, "Only jobs in this state")
      ->check(CLI::IsMember({"queued", "running", "paused", "succeeded", "failed", "cancelled", "held"}));
  AddJob(app->add_subcommand("describe", "All about one job: state, first cause, how to go on, ledger, versions."),
         &flags->job);
  AddJob(app->add_subcommand("cancel", "Ask a job to end, with a checkpoint."), &flags->job);
  AddJob(app->add_subcommand("kill", "End a job at once, without a checkpoint."), &flags->job);
  AddJob(app->add_subcommand("pause", "Stop a job after a checkpoint, until it is resumed."), &flags->job);
  AddJob(app->add_subcommand("resume",
                             "Let a job that failed, was held, cancelled or paused go on from its last checkpoint."),
         &flags->job);
  CLI::App* remove = app->add_subcommand("delete", "Forget a job that has ended.");
  AddJob(remove, &flags->job);
  remove->add_flag("--files", flags->files, "Remove its run folder too: checkpoints, exports, reports");
}

void AddFollowing(CLI::App* app, Flags* flags) {
  CLI::App* watch = app->add_subcommand("watch", "Follow a job to its end. Ctrl-C detaches; the job goes on.");
  AddJob(watch, &flags->job);
  watch->add_option("--after", flags->after, "Only events after this number")->capture_default_str();
  CLI::App* wait = app->add_subcommand("wait", "Wait for a job's end; the exit code is its outcome.");
  AddJob(wait, &flags->job);
  wait->add_option("--timeout,--for", flags->wait_timeout_s, "Give up after so many seconds (exit code 11); 0: never")
      ->check(CLI::NonNegativeNumber);
  CLI::App* logs = app->add_subcommand("logs", "Print a job's log lines.");
  AddJob(logs, &flags->job);
  logs->add_flag("-f,--follow", flags->follow, "Go on until the job ends");
  logs->add_option("--role", flags->logs.role, "Only lines of this kind of process: learner, actor, coordinator")
      ->check(CLI::IsMember({"learner", "actor", "coordinator"}));
  logs->add_option("--rank", flags->rank, "Only lines of this learner rank and of the actors that work for it")
      ->check(CLI::Range(0, 100000));
  logs->add_option("--level", flags->logs.level, "Only lines of this level and above")
      ->check(CLI::IsMember({"info", "warning", "error"}));
  logs->add_option("--since", flags->since_s, "Only lines of so many latest seconds, or 10m, 2h")
      ->transform(CLI::AsNumberWithUnit(std::map<std::string, double>{{"s", 1}, {"m", 60}, {"h", 3600}, {"d", 86400}},
                                        CLI::AsNumberWithUnit::CASE_INSENSITIVE));
  logs->add_option("--tail", flags->logs.tail, "Only so many of the last of them")->check(CLI::Range(0, 1000000));
  logs->add_option("--grep", flags->logs.grep, "Only lines in which this extended regular expression is found");
  CLI::App* events = app->add_subcommand("events", "Print everything that happened to a job, with numbers.");
  AddJob(events, &flags->job);
  events->add_option("--after", flags->after, "Only events after this number")->capture_default_str();
  events->add_flag("-f,--follow", flags->follow, "Go on until the job ends");
  CLI::App* metrics = app->add_subcommand("metrics", "A job's measurements: the latest of each, or series of some.");
  AddJob(metrics, &flags->metrics.job);
  metrics->add_option("NAME", flags->metrics.names, "Series of these, such as loss/nll; default: the latest of each");
  metrics->add_flag("--last", flags->metrics.last, "The last row alone");
  metrics->add_flag("-f,--follow", flags->metrics.follow, "Print rows as they come, until the job ends");
  CLI::App* trace = app->add_subcommand(
      "trace",
      "What became of single groups of an rl job: issued, sampled, scored, judged, trained, and what is not known.");
  trace
      ->add_option("JOB", flags->trace.job,
                   "Id of the job, or its beginning if that is unique; with a /: the folder of a run, which is read "
                   "without a coordinator (runs sluice-learner)")
      ->required();
  trace->add_option("ORDINAL", flags->trace.ordinals, "The groups, by their numbers in the job; at most 100")
      ->required()
      ->check(CLI::NonNegativeNumber);
  trace
      ->add_option("--journal", flags->trace.journals,
                   "Add what an actor wrote down of them (sluice-actor --journal): its folder, a file, or a folder of "
                   "such folders; may be repeated")
      ->allow_extra_args(false);
  app->add_subcommand("top", "Jobs, ranks and rates on one screen, refreshed on a terminal.");
}

void AddFiles(CLI::App* app, Flags* flags) {
  CLI::App* artifacts = app->add_subcommand("artifacts", "Files of a job's run folder.");
  artifacts->require_subcommand(1);
  AddJob(artifacts->add_subcommand("list", "List them."), &flags->job);
  CLI::App* download = artifacts->add_subcommand("download", "Fetch them; goes on where an earlier try stopped.");
  AddJob(download, &flags->job);
  download->add_option("PREFIX", flags->prefixes, "Only files whose paths begin so, such as export/best; default: all");
  download->add_option("--to", flags->folder, "Folder to put them in")->required();
  CLI::App* exporting = app->add_subcommand("export", "Fetch a job's model in Hugging Face layout.");
  AddJob(exporting, &flags->job);
  exporting->add_option("--to", flags->folder, "Folder to make")->required();
  exporting->add_option("--which", flags->which, "best: of the best validation; final: after the last step")
      ->capture_default_str()
      ->check(CLI::IsMember({"best", "final"}));
  CLI::App* report = app->add_subcommand("report", "Fetch a job's HTML report.");
  AddJob(report, &flags->job);
  report->add_option("--to", flags->file, "The file; default: JOB.html");
  CLI::App* compare = app->add_subcommand(
      "compare", "Say which differences between evaluate jobs are real: paired bootstrap over users.");
  compare->add_option("ARM", flags->compare.arms, "Evaluate jobs; seeds of one arm joined by commas; a name before =")
      ->required();
  compare->add_option("--against", flags->compare.against,
                      "Name or number of an arm that every other one is compared with; default: the first");
  compare->add_option("--metrics", flags->compare.metrics, "hr@10,ndcg@10,...; default: hr, ndcg, mrr at all cutoffs")
      ->delimiter(',');
  compare->add_option("--resamples", flags->compare.resamples, "Bootstrap resamples")
      ->capture_default_str()
      ->check(CLI::Range(1, 100000));
  compare->add_option("--confidence", flags->compare.confidence, "Of the intervals")
      ->capture_default_str()
      ->check(CLI::Range(0.5, 0.9999));
  compare->add_option("--seed", flags->compare.seed, "Of the resamples")->capture_default_str();
  CLI::App* data = app->add_subcommand("data", "Data on the coordinator's machine, by digest.");
  data->require_subcommand(1);
  CLI::App* push = data->add_subcommand("push", "Push a file or folder; goes on where an earlier try stopped.");
  push->add_option("PATH", flags->path, "A prepared data set, a folder, or a file of events")->required();
  push->add_option("--name", flags->name, "For people; default: the path's last part");
  data->add_subcommand("list", "List what was pushed.");
  data->add_subcommand("rm", "Remove what was pushed.")
      ->add_option("DIGEST", flags->digest, "Its digest, or at least 8 digits of it")
      ->required();
}

void AddMirror(CLI::App* app, MirrorFlags* flags) {
  CLI::App* mirror = app->add_subcommand(
      "mirror",
      "Copy a job's metrics, spec and state to a tracker; called again it goes on (runs python3 -m sluice.mirror).");
  AddJob(mirror, &flags->job);
  mirror->add_option("--to", flags->to, "mlflow (with --uri), tensorboard or wandb (with --folder)")
      ->required()
      ->check(CLI::IsMember({"mlflow", "tensorboard", "wandb"}));
  mirror->add_option("--uri", flags->uri, "The MLflow server, http://HOST:PORT");
  mirror->add_option("--folder", flags->folder,
                     "Of event files for TensorBoard, or of offline runs that 'wandb sync' sends");
  mirror->add_option("--experiment", flags->experiment, "MLflow's experiment, W&B's project; default: sluice");
  mirror->add_option("--name", flags->name, "Of the run at the tracker; default: the job's id");
  mirror->add_flag("-f,--follow", flags->follow, "Go on until the job ends, or ctrl-C");
  mirror->add_option("--every", flags->every_s, "Seconds between two looks of --follow; default: 5, to wandb 300")
      ->check(CLI::PositiveNumber);
  mirror->add_option("--patience", flags->patience_s, "Seconds for which a server that is lost is asked; default: 60")
      ->check(CLI::PositiveNumber);
  mirror->add_option("--cursor", flags->cursor, "File that remembers what was sent; default: one of its own");
}

void AddRest(CLI::App* app, Flags* flags) {
  CLI::App* config = app->add_subcommand("config", "About the job spec.");
  config->require_subcommand(1);
  CLI::App* explain = config->add_subcommand("explain", "Type, default, range and effect of keys.");
  explain->add_option("KEY", flags->key, "A key or section, such as rl.gate.tau; default: all");
  explain->add_flag("--markdown", flags->markdown, "As a reference page");
  config->add_subcommand("schema", "JSON Schema of job specs, for editors.");
  config->add_subcommand("init", "A first spec, every key with its default as a comment.")
      ->add_option("KIND", flags->kind, "prepare, sft, rl or evaluate")
      ->required();
  CLI::App* diff = config->add_subcommand("diff", "Compare two effective specs; exit code 1 if they differ.");
  diff->add_option("SPEC", flags->pair, "Two files or jobs")->required()->expected(2);
  CLI::App* context = app->add_subcommand("context", "Named coordinators.");
  context->require_subcommand(1);
  context->add_subcommand("list", "List them; * is the current one.");
  const auto add_name = [flags](CLI::App* command, bool required) {
    command->add_option("NAME", flags->context_name, "The context's name")->required(required);
  };
  add_name(context->add_subcommand("use", "Make one the current one."), true);
  CLI::App* set = context->add_subcommand("set", "Make or change one.");
  add_name(set, true);
  set->add_option("--server", flags->context_fields["server"], "The coordinator, HOST:PORT");
  set->add_option("--tls-ca", flags->context_fields["tls_ca"], "PEM file of the CA whose certificates are believed");
  set->add_option("--tls-cert", flags->context_fields["tls_cert"], "PEM file of the own certificate");
  set->add_option("--tls-key", flags->context_fields["tls_key"], "PEM file of its private key");
  set->add_option("--token-file", flags->context_fields["token_file"], "File with the token that goes with every call");
  add_name(context->add_subcommand("show", "Show one; default: the current one."), false);
  add_name(context->add_subcommand("rm", "Remove one."), true);
  app->add_subcommand("doctor", "Check name, connection, clocks, releases, storage and ranker; with a fix for each.");
  app->add_subcommand("completion", "Print a completion script for a shell.")
      ->add_option("SHELL", flags->shell, "bash, zsh or fish")
      ->required()
      ->check(CLI::IsMember({"bash", "zsh", "fish"}));
  app->add_subcommand("man", "Print the man page, or the reference page in Markdown.")
      ->add_flag("--markdown", flags->markdown, "In Markdown");
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
  app->add_subcommand("version", "Print the release.")
      ->add_flag("--remote", flags->remote, "Of the coordinator and the ranks too");
}

// Flag, then environment, then context, then the default.
absl::StatusOr<Context> PlaceOf(const Flags& flags) {
  Context place;
  // What a context says of one coordinator is not for another that was named by itself.
  if (flags.server.empty() || !flags.context.empty()) {
    SLUICE_ASSIGN_OR_RETURN(const Contexts contexts, ReadContexts(ContextsPath()));
    SLUICE_ASSIGN_OR_RETURN(place, ChooseContext(contexts, flags.context));
  }
  if (!flags.server.empty()) place.server = flags.server;
  if (place.server.empty()) place.server = kDefaultServer;
  // A certificate and its key go together, so do they and the CA that they are of.
  if (!flags.security.tls.ca.empty() || !flags.security.tls.certificate.empty() || !flags.security.tls.key.empty()) {
    place.tls_ca = flags.security.tls.ca;
    place.tls_cert = flags.security.tls.certificate;
    place.tls_key = flags.security.tls.key;
  }
  if (!flags.security.token_file.empty()) place.token_file = flags.security.token_file;
  return place;
}

// Where the coordinator is and how to be let in, as it was said to this program: by flags or by the environment.
std::vector<std::string> ConnectionArguments(const CLI::App& app) {
  std::vector<std::string> arguments;
  for (const char* name :
       {"--server", "--context", "--timeout", "--tls-ca", "--tls-cert", "--tls-key", "--token-file"}) {
    const CLI::Option* option = app.get_option(name);
    if (option->count() > 0) arguments.push_back(absl::StrCat(name, "=", option->as<std::string>()));
  }
  return arguments;
}

int DispatchContext(const CLI::App& command, const Flags& flags, const Printer& printer) {
  const std::string path = ContextsPath();
  if (command.got_subcommand("list")) return ListContexts(printer, path);
  if (command.got_subcommand("use")) return UseContext(printer, path, flags.context_name);
  if (command.got_subcommand("show")) return ShowContext(printer, path, flags.context_name);
  if (command.got_subcommand("rm")) return RemoveContext(printer, path, flags.context_name);
  std::map<std::string, std::string> given;
  for (const auto& [field, value] : flags.context_fields) {
    if (!value.empty()) given[field] = value;
  }
  return SetContext(printer, path, flags.context_name, given);
}

int DispatchCommand(const CLI::App& app, const Flags& flags, Commands* commands) {
  const auto got = [&app](const char* name) { return app.got_subcommand(name); };
  if (got("submit")) return commands->Submit(flags.submit);
  if (got("validate")) return commands->Validate(flags.submit.spec_path, flags.submit.overrides);
  if (got("fork")) return commands->Fork(flags.fork);
  if (got("evaluate")) return commands->Evaluate(flags.job, flags.submit);
  if (got("list")) return commands->List(flags.limit, flags.state);
  if (got("describe")) return commands->Describe(flags.job);
  if (got("cancel")) return commands->Cancel(flags.job);
  if (got("kill")) return commands->Kill(flags.job);
  if (got("pause")) return commands->Pause(flags.job);
  if (got("resume")) return commands->Resume(flags.job);
  if (got("delete")) return commands->Delete(flags.job, flags.files);
  if (got("watch")) return commands->Watch(flags.job, flags.after);
  if (got("wait")) {
    return commands->Wait(flags.job,
                          flags.wait_timeout_s > 0 ? absl::Seconds(flags.wait_timeout_s) : absl::InfiniteDuration());
  }
  if (got("logs")) {
    LogFlags logs = flags.logs;
    logs.follow = flags.follow;
    if (flags.rank >= 0) logs.rank = flags.rank;
    if (flags.since_s > 0) logs.since = absl::Seconds(flags.since_s);
    return commands->Logs(flags.job, logs);
  }
  if (got("events")) return commands->Events(flags.job, flags.after, flags.follow);
  if (got("metrics")) return commands->Metrics(flags.metrics);
  if (got("trace")) return commands->Trace(flags.trace);
  if (got("top")) return commands->Top();
  if (got("artifacts")) {
    if (app.get_subcommand("artifacts")->got_subcommand("list")) return commands->Artifacts(flags.job);
    return commands->Download(flags.job, flags.prefixes, flags.folder);
  }
  if (got("export")) return commands->Export(flags.job, flags.which, flags.folder);
  if (got("report")) return commands->Report(flags.job, flags.file);
  if (got("compare")) return commands->Compare(flags.compare);
  if (got("data")) {
    const CLI::App& data = *app.get_subcommand("data");
    if (data.got_subcommand("push")) return commands->PushData(flags.path, flags.name);
    return data.got_subcommand("list") ? commands->ListData() : commands->RemoveData(flags.digest);
  }
  if (got("config")) {
    const CLI::App& config = *app.get_subcommand("config");
    if (config.got_subcommand("schema")) return commands->Schema();
    if (config.got_subcommand("init")) return commands->InitConfig(flags.kind);
    if (config.got_subcommand("diff")) return commands->Diff(flags.pair.at(0), flags.pair.at(1));
    return commands->Explain(flags.key, flags.markdown);
  }
  if (got("doctor")) return commands->Doctor();
  return commands->Version(flags.remote);
}

}  // namespace

std::unique_ptr<CLI::App> MakeApp(Flags* flags) {
  auto app = std::make_unique<CLI::App>("Submits Sluice's jobs and follows them.");
  app->name("sluicectl");
  app->footer(kFooter);
  app->require_subcommand(1);
  app->fallthrough();
  app->add_option("--server", flags->server,
                  absl::StrCat("The coordinator, HOST:PORT; default: the context's, else ", kDefaultServer))
      ->envname("SLUICE_SERVER");
  app->add_option("--context", flags->context, "Of the named coordinators this one; default: the current one")
      ->envname("SLUICE_CONTEXT");
  app->add_option("--timeout", flags->timeout_s, "Seconds for one call, retries included")
      ->capture_default_str()
      ->check(CLI::Range(0.1, 3600.0));
  AddTlsFlags(app.get(), &flags->security);
  AddTokenFlag(app.get(), &flags->security);
  const std::map<std::string, OutputFormat> formats = {{"table", OutputFormat::kTable}, {"wide", OutputFormat::kWide},
                                                       {"json", OutputFormat::kJson},   {"jsonl", OutputFormat::kJsonl},
                                                       {"yaml", OutputFormat::kYaml},   {"name", OutputFormat::kName}};
  app->add_option("-o,--output", flags->format,
                  "table, wide (more columns), json, jsonl (one object a line), yaml, or name (ids alone)")
      ->transform(CLI::CheckedTransformer(formats, CLI::ignore_case).description(""));
  app->add_flag("-q,--quiet", flags->quiet, "Say nothing but data and errors");
  app->add_flag("--no-color", flags->no_color, "No colours on a terminal (so does NO_COLOR in the environment)");
  AddMaking(app.get(), flags);
  AddJobs(app.get(), flags);
  AddFollowing(app.get(), flags);
  AddFiles(app.get(), flags);
  AddMirror(app.get(), &flags->mirror);
  AddRest(app.get(), flags);
  return app;
}

Handover FindHandover(const CLI::App& app, int argc, const char* const* argv) {
  for (int i = 1; i < argc; ++i) {
    const std::string word = argv[i];
    if (absl::StartsWith(word, "-")) {
      const CLI::Option* option = app.get_option_no_throw(word.substr(0, word.find('=')));
      // An option's value is no command, whatever it is called; "-ojson" has its own.
      if (option != nullptr && option->get_items_expected_max() > 0 && word.find('=') == std::string::npos) ++i;
      continue;
    }
    if (word == "inspect") return {i, "sluice-inspect", false};
    if (word == "replay" || word == "advise") return {i, "sluice-learner", true};
    return {};
  }
  return {};
}

int Dispatch(const CLI::App& app, const Flags& flags, const std::atomic<bool>& stop) {
  Console console;
  console.out_terminal = isatty(STDOUT_FILENO) == 1;
  console.err_terminal = isatty(STDERR_FILENO) == 1;
  const char* const no_color = std::getenv("NO_COLOR");
  console.color = console.out_terminal && !flags.no_color && (no_color == nullptr || *no_color == '\0');
  console.quiet = flags.quiet;
  console.format = flags.format;
  const Printer printer(console);
  if (app.got_subcommand("completion")) {
    printer.Out(CompletionScript(app, flags.shell));
    return 0;
  }
  if (app.got_subcommand("man")) {
    printer.Out(flags.markdown ? ReferencePage(app) : ManPage(app));
    return 0;
  }
  if (app.got_subcommand("context")) return DispatchContext(*app.get_subcommand("context"), flags, printer);
  if (app.got_subcommand("token")) return TokenCommand(flags.token);
  if (app.got_subcommand("mirror")) {
    if (flags.format != OutputFormat::kTable && flags.format != OutputFormat::kJson) {
      return printer.Fail(absl::InvalidArgumentError("-o: mirror prints text or json"));
    }
    return MirrorCommand(MirrorArguments(flags.mirror, ConnectionArguments(app), flags.format == OutputFormat::kJson));
  }
  if (app.got_subcommand("trace") && absl::StrContains(flags.trace.job, '/')) {
    if (flags.format != OutputFormat::kTable && flags.format != OutputFormat::kJson) {
      return printer.Fail(absl::InvalidArgumentError("-o: of a run's folder trace prints a table or json"));
    }
    return ExecBeside("sluice-learner", FolderTraceArguments(flags.trace, flags.format == OutputFormat::kJson));
  }
  const absl::StatusOr<Context> place = PlaceOf(flags);
  if (!place.ok()) return printer.Fail(place.status());
  const absl::Status address = CheckAddress("--server", place->server);
  if (!address.ok()) return printer.Fail(address);
  const auto credentials = Credentials::Load({{place->tls_ca, place->tls_cert, place->tls_key}, place->token_file});
  if (!credentials.ok()) return printer.Fail(credentials.status());
  const RoleSet coordinator = {Role::kCoordinator};
  const auto channel = MakeChannel(place->server, *credentials, coordinator);
  if (!channel.ok()) return printer.Fail(channel.status());
  JobClientOptions options;
  options.server = place->server;
  options.timeout = absl::Seconds(flags.timeout_s);
  options.explain = [&](const absl::Status& status) {
    return (*credentials)->Explain(status, place->server, coordinator);
  };
  JobClient client(*channel, options);
  Commands commands(&client, console, &stop);
  return DispatchCommand(app, flags, &commands);
}

}  // namespace sluice::client
