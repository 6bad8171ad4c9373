// What shells, man and the documentation say of sluicectl, from its command line's own description.
#ifndef SLUICE_CLIENT_CLI_COMPLETION_H_
#define SLUICE_CLIENT_CLI_COMPLETION_H_

#include <CLI/CLI.hpp>
#include <string>

namespace sluice::client {

// `shell`: "bash", "zsh" or "fish". Commands, their options and the values of options that have few; jobs' ids are
// asked of the coordinator.
std::string CompletionScript(const CLI::App& app, const std::string& shell);

std::string ManPage(const CLI::App& app);  // roff, section 1

// docs/reference/sluicectl.md.
std::string ReferencePage(const CLI::App& app);

}  // namespace sluice::client

#endif  // SLUICE_CLIENT_CLI_COMPLETION_H_
