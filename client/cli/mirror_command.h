// `sluicectl mirror`: copies a job to a tracker. The work is done in Python, where trackers are at home
// (docs/decisions/015): this finds an interpreter that has the package `sluice`, and becomes it.
#ifndef SLUICE_CLIENT_CLI_MIRROR_COMMAND_H_
#define SLUICE_CLIENT_CLI_MIRROR_COMMAND_H_

#include <string>
#include <vector>

namespace sluice::client {

struct MirrorFlags {
  std::string job;
  std::string to;  // "mlflow", "tensorboard", "wandb"
  std::string uri, folder, experiment, name, cursor;
  bool follow = false;
  double every_s = 0;     // 0: the tracker's own
  double patience_s = 0;  // 0: the default
};

// What `python3 -m sluice.mirror` is told. connection: its options for the coordinator.
std::vector<std::string> MirrorArguments(const MirrorFlags& flags, const std::vector<std::string>& connection,
                                         bool as_json);

// Replaces this process by $SLUICE_PYTHON, or python3, with `-m sluice.mirror` and the arguments. Returns an exit code
// only if that cannot be, and says what is missing.
int MirrorCommand(const std::vector<std::string>& arguments);

}  // namespace sluice::client

#endif  // SLUICE_CLIENT_CLI_MIRROR_COMMAND_H_
