#include "client/cli/mirror_command.h"

#include <fcntl.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "common/status/exit_code.h"

namespace sluice::client {
namespace {

std::vector<char*> Pointers(std::vector<std::string>* words) {
  std::vector<char*> pointers;
  for (std::string& word : *words) pointers.push_back(word.data());
  pointers.push_back(nullptr);
  return pointers;
}

// Whether the interpreter has a package that can mirror a job; it says nothing itself. Empty: yes; else why not.
std::string WhyNot(const std::string& python) {
  // -P: what lies in the present folder is not imported. Python has it since 3.11, and the package wants that too.
  std::vector<std::string> words = {python, "-P", "-c", "import sluice.mirror.source"};
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  const auto destroy = absl::MakeCleanup([&actions] { posix_spawn_file_actions_destroy(&actions); });
  for (const int stream : {STDOUT_FILENO, STDERR_FILENO}) {
    posix_spawn_file_actions_addopen(&actions, stream, "/dev/null", O_WRONLY, 0);
  }
  pid_t child = 0;
  if (const int error = posix_spawnp(&child, python.c_str(), &actions, nullptr, Pointers(&words).data(), environ);
      error != 0) {
    return absl::StrCat("'", python, "' cannot be run (", std::strerror(error), "): install Python 3.11 or later");
  }
  int status = 0;
  while (waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  if (WIFEXITED(status) && WEXITSTATUS(status) == 0) return "";
  return absl::StrCat("'", python, "' is older than 3.11, or has no package sluice of this release: install it with '",
                      python, " -m pip install WHEEL' (client/python/build_wheel.py makes the wheel)");
}

}  // namespace

std::vector<std::string> MirrorArguments(const MirrorFlags& flags, const std::vector<std::string>& connection,
                                         bool as_json) {
  std::vector<std::string> arguments;
  // In one word: a value may begin with a dash.
  const auto add = [&arguments](const char* name, const std::string& value) {
    if (!value.empty()) arguments.push_back(absl::StrCat(name, "=", value));
  };
  add("--job", flags.job);
  add("--to", flags.to);
  add("--uri", flags.uri);
  add("--folder", flags.folder);
  add("--experiment", flags.experiment);
  add("--name", flags.name);
  add("--cursor", flags.cursor);
  if (flags.follow) arguments.push_back("--follow");
  if (flags.every_s > 0) add("--every", absl::StrCat(flags.every_s));
  if (flags.patience_s > 0) add("--patience", absl::StrCat(flags.patience_s));
  arguments.insert(arguments.end(), connection.begin(), connection.end());
  if (as_json) add("--output", "json");
  return arguments;
}

int MirrorCommand(const std::vector<std::string>& arguments) {
  const char* const named = std::getenv("SLUICE_PYTHON");
  const std::string python = named == nullptr || *named == '\0' ? "python3" : named;
  if (const std::string why = WhyNot(python); !why.empty()) {
    std::fprintf(stderr,
                 "sluicectl: mirror is done by the Python package sluice, and %s; or name another interpreter in "
                 "SLUICE_PYTHON\n",
                 why.c_str());
    return static_cast<int>(ExitCode::kUsage);
  }
  std::vector<std::string> words = {python, "-P", "-m", "sluice.mirror"};
  words.insert(words.end(), arguments.begin(), arguments.end());
  execvp(python.c_str(), Pointers(&words).data());
  std::fprintf(stderr, "sluicectl: '%s' cannot be run: %s\n", python.c_str(), std::strerror(errno));
  return static_cast<int>(ExitCode::kFailed);
}

}  // namespace sluice::client
