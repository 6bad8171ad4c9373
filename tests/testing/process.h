// Useful for: starting one of Sluice's binaries as a user would, reading what it says, and stopping it.
#ifndef SLUICE_TESTS_TESTING_PROCESS_H_
#define SLUICE_TESTS_TESTING_PROCESS_H_

#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <string>
#include <vector>

extern char** environ;

namespace sluice {

// A child whose standard error is read through a pipe; killed with the object if it still runs.
class Process {
 public:
  // `binary`: its name in build/bin.
  Process(const std::string& binary, std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), std::string(SLUICE_BINARY_DIR) + "/bin/" + binary);
    std::vector<char*> argv;
    for (std::string& argument : arguments) argv.push_back(argument.data());
    argv.push_back(nullptr);
    int ends[2] = {-1, -1};
    if (pipe2(ends, O_CLOEXEC) != 0) return;
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, ends[1], 2);
    if (posix_spawn(&pid_, argv[0], &actions, nullptr, argv.data(), environ) != 0) pid_ = -1;
    posix_spawn_file_actions_destroy(&actions);
    close(ends[1]);
    output_ = ends[0];
  }
  Process(const Process&) = delete;
  Process& operator=(const Process&) = delete;
  ~Process() {
    if (pid_ > 0) {
      kill(pid_, SIGKILL);
      Wait();
    }
    close(output_);
  }
  void Signal(int signal) const { kill(pid_, signal); }
  // Reads what it says up to a line with `text`, which is returned; empty if it ended without one.
  std::string ReadLineWith(const std::string& text) {
    size_t begin = 0;
    while (true) {
      for (size_t end; (end = said_.find('\n', begin)) != std::string::npos; begin = end + 1) {
        const std::string line = said_.substr(begin, end - begin);
        if (line.find(text) != std::string::npos) return line;
      }
      if (!Read()) return "";
    }
  }
  // Waits for its end and returns its exit code; -1 if a signal ended it.
  int Wait() {
    while (Read()) {
    }
    int status = 0;
    waitpid(pid_, &status, 0);
    pid_ = -1;
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  }
  const std::string& said() const { return said_; }

 private:
  bool Read() {
    char buffer[4096];
    const ssize_t count = read(output_, buffer, sizeof(buffer));
    if (count <= 0) return false;
    said_.append(buffer, static_cast<size_t>(count));
    return true;
  }

  pid_t pid_ = -1;
  int output_ = -1;
  std::string said_;
};

}  // namespace sluice

#endif  // SLUICE_TESTS_TESTING_PROCESS_H_
