#include "learner/run_command.h"

#include <ATen/Parallel.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "common/collective/collective.h"
#include "common/collective/weight_group.h"
#include "common/file/file.h"
#include "common/metrics/metrics.h"
#include "common/spec/spec.h"
#include "common/status/status.h"
#include "common/tensor/device.h"
#include "common/tensor/keep_memory.h"
#include "common/time/clock.h"
#include "learner/rank_server.h"
#include "learner/rpc/options_from_spec.h"
#include "learner/run/local_services.h"
#include "learner/run/metered_monitor.h"
#include "learner/run/run_context.h"
#include "learner/train/checkpoint.h"

namespace sluice::learner {
namespace {

// Digits of the spec's digest in a run folder's name: two specs of one name must not meet.
constexpr size_t kDigestDigits = 8;
constexpr size_t kMaxFolderNameBytes = 200;

// A folder with checkpoints, or of another kind of job, keeps what it holds when a spec is refused: the refusal must
// come before anything is written there.
absl::Status CheckRunFolder(const std::string& folder, const RunContext& context, const v1::JobSpec& effective) {
  const std::string path = JoinPath(folder, "spec.yaml");
  if (!PathExists(path)) return absl::OkStatus();
  CheckpointState then;
  SLUICE_ASSIGN_OR_RETURN(then.spec_yaml, ReadFile(path, kMaxSpecBytes));
  const absl::StatusOr<ResolvedSpec> spec = ResolveSpec(then.spec_yaml, path, {});
  if (!spec.ok()) return absl::OkStatus();  // of another version of Sluice: the checkpoint itself decides
  then.spec_digest = ResumeDigest(spec->effective);
  SLUICE_ASSIGN_OR_RETURN(const std::vector<std::string> found, ListCheckpoints(JoinPath(folder, "checkpoints")));
  if (found.empty() && spec->effective.kind() == effective.kind()) return absl::OkStatus();
  return Annotate(CheckResumable(then, context.spec_yaml, context.resume_digest, ""),
                  absl::StrCat("run folder '", folder, "'"));
}

const char* UnitOf(JobKind kind) { return kind == JobKind::kEvaluate ? "users" : "steps"; }

// A name for people may hold anything; as a folder's it must not lead out of the folder of runs, nor be too long.
std::string FolderName(const std::string& name, const std::string& digest) {
  std::string folder = name.substr(0, kMaxFolderNameBytes);
  for (char& c : folder) {
    if (c == '/' || absl::ascii_iscntrl(static_cast<unsigned char>(c))) c = '-';
  }
  return absl::StrCat(folder, "-", digest.substr(0, kDigestDigits));
}

}  // namespace

absl::Status RunCommand(const RunFlags& flags, const std::atomic<int>& stop) {
  SLUICE_ASSIGN_OR_RETURN(const Placement placement, OpenPlacement(flags.device, flags.precision));
  SLUICE_ASSIGN_OR_RETURN(
      const WeightBackend weights,
      OpenWeightBackend(flags.weights, placement.device, flags.security.credentials->has_tls(), flags.collective_host));
  SLUICE_ASSIGN_OR_RETURN(const std::string yaml, ReadFile(flags.spec_path, kMaxSpecBytes));
  SLUICE_ASSIGN_OR_RETURN(const ResolvedSpec spec, ResolveSpec(yaml, flags.spec_path, flags.overrides));
  RunContext context;
  SLUICE_ASSIGN_OR_RETURN(context.options, OptionsFromSpec(spec.effective));
  context.spec_yaml = SpecToYaml(spec.effective);
  context.spec_digest = SpecDigest(spec.effective);
  context.resume_digest = ResumeDigest(spec.effective);
  context.run_folder = !flags.run_folder.empty()
                           ? flags.run_folder
                           : JoinPath(flags.runs_folder, FolderName(context.options.name, context.spec_digest));
  context.job_id = context.options.name;
  SLUICE_RETURN_IF_ERROR(CheckRunFolder(context.run_folder, context, spec.effective));
  SLUICE_RETURN_IF_ERROR(MakeDirectories(context.run_folder));
  SLUICE_ASSIGN_OR_RETURN(
      const std::unique_ptr<FileLock> lock,
      FileLock::Acquire(JoinPath(context.run_folder, "lock"), absl::StrCat("run folder '", context.run_folder, "'")));
  SLUICE_RETURN_IF_ERROR(WriteFileAtomically(JoinPath(context.run_folder, "spec.yaml"), context.spec_yaml));

  at::set_num_threads(flags.threads);
  KeepFreedMemory();
  const std::unique_ptr<Collective> collective = MakeSingleCollective();
  ConsoleMonitor monitor(UnitOf(context.options.kind), &stop, MonotonicClock());
  LocalReservations reservations(context.run_folder);
  context.collective = collective.get();
  context.reservations = &reservations;
  context.now = MonotonicClock();
  context.placement = placement;
  monitor.ReportResult("run folder", context.run_folder);
  Metrics metrics;
  JobSeries series(&metrics, WallClock());
  JobWaits waits(&metrics, MonotonicClock());
  context.waits = &waits;
  MeteredMonitor metered(&monitor, &series);
  context.monitor = &metered;
  if (!flags.metrics_address.empty()) SLUICE_RETURN_IF_ERROR(metrics.Serve(flags.metrics_address).status());
  std::unique_ptr<RankServer> server;
  const bool evaluates_with_actors = context.options.kind == JobKind::kEvaluate && !flags.address.empty();
  if (context.options.kind == JobKind::kRl || evaluates_with_actors) {
    const std::string address = flags.address.empty() ? kDefaultAddress : flags.address;
    SLUICE_ASSIGN_OR_RETURN(
        server, RankServer::Start(address, flags.security, &metrics, MonotonicClock(), flags.publication, weights));
    context.rollouts = server.get();
    monitor.ReportResult("actors attach at", server->address());
  }
  const absl::Status status = RunJob(context);
  metered.End(status);
  return status;
}

}  // namespace sluice::learner
