// sluicectl: submits and follows jobs. Wiring only.

#include <CLI/CLI.hpp>
#include <atomic>
#include <csignal>
#include <memory>
#include <string>
#include <vector>

#include "client/cli/app.h"
#include "common/log/log.h"
#include "common/status/exit_code.h"

namespace {

std::atomic<bool> interrupted{false};

// The first ctrl-C detaches; a second one ends the process at once.
void OnInterrupt(int) {
  interrupted = true;
  std::signal(SIGINT, SIG_DFL);
}

// Options before the word are sluicectl's: they are checked, and the form of the output is passed on.
int HandOver(const sluice::client::Handover& handover, CLI::App* app, const sluice::client::Flags& flags, int argc,
             char** argv) {
  app->require_subcommand(0);
  app->parse(handover.word, argv);
  std::vector<std::string> arguments(argv + handover.word + (handover.keeps_word ? 0 : 1), argv + argc);
  if (app->get_option("--output")->count() > 0) {
    if (flags.format != sluice::client::OutputFormat::kJson) {
      throw CLI::ValidationError("-o", "inspect, replay and advise print text or json");
    }
    arguments.insert(arguments.end(), {"-o", "json"});
  }
  return sluice::client::ExecBeside(handover.program, arguments);
}

}  // namespace

int main(int argc, char** argv) {
  sluice::client::Flags flags;
  const std::unique_ptr<CLI::App> app = sluice::client::MakeApp(&flags);
  const sluice::client::Handover handover = sluice::client::FindHandover(*app, argc, argv);
  try {
    if (handover.word > 0) return HandOver(handover, app.get(), flags, argc, argv);
    app->parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app->exit(error) == 0 ? 0 : static_cast<int>(sluice::ExitCode::kUsage);
  }
  sluice::InitLogging("sluicectl", sluice::LogFormat::kText, sluice::LogLevel::kWarning);
  std::signal(SIGINT, OnInterrupt);
  std::signal(SIGPIPE, SIG_DFL);  // `sluicectl list | head` ends quietly
  return sluice::client::Dispatch(*app, flags, interrupted);
}
