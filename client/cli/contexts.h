// Named coordinators: where they are and how to be let in.
//
//   current: lab
//   contexts:
//     lab:
//       server: lab.example:7070
//       tls_ca: /etc/sluice/ca.pem
//       token_file: /etc/sluice/token
//
// The file is $SLUICE_CONFIG, else $XDG_CONFIG_HOME/sluice/contexts.yaml, else ~/.config/sluice/contexts.yaml.
#ifndef SLUICE_CLIENT_CLI_CONTEXTS_H_
#define SLUICE_CLIENT_CLI_CONTEXTS_H_

#include <map>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "client/cli/console.h"

namespace sluice::client {

struct Context {
  std::string server;                                 // HOST:PORT; empty: the default
  std::string tls_ca, tls_cert, tls_key, token_file;  // paths, as the flags of these names; empty: none
};

struct Contexts {
  std::string current;  // empty: none
  std::map<std::string, Context> all;
};

// Where the file is, or would be; "" if there is no place for it.
std::string ContextsPath();

// Nothing if there is no such file. InvalidArgument: it has mistakes, all of them a line each.
absl::StatusOr<Contexts> ReadContexts(const std::string& path);
// Readable by its owner alone.
absl::Status WriteContexts(const std::string& path, const Contexts& contexts);

// The context of this name, or the current one if `name` is empty; an empty one if there is none. NotFound: no context
// has the name.
absl::StatusOr<Context> ChooseContext(const Contexts& contexts, const std::string& name);

// `sluicectl context ...`. Each returns an exit code.
int ListContexts(const Printer& printer, const std::string& path);
int UseContext(const Printer& printer, const std::string& path, const std::string& name);
// Makes or changes a context; fields that are not given stay as they are.
int SetContext(const Printer& printer, const std::string& path, const std::string& name,
               const std::map<std::string, std::string>& fields);
int ShowContext(const Printer& printer, const std::string& path, const std::string& name);
int RemoveContext(const Printer& printer, const std::string& path, const std::string& name);

}  // namespace sluice::client

#endif  // SLUICE_CLIENT_CLI_CONTEXTS_H_
