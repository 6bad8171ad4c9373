#include "learner/run_command.h"

#include <ATen/Parallel.h>

#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/collective/collective.h"
#include "common/file/file.h"
#include "common/metrics/metrics.h"
#include "common/spec/spec.h"
#include "common/status/status.h"
#include "common/time/clock.h"
#include "learner/rank_server.h"
#include "learner/rpc/options_from_spec.h"
#include "learner/run/local_services.h"
#include "learner/run/run_context.h"

namespace sluice::learner {
namespace {

// Digits of the spec's digest in a run folder's name: two specs of one name must not meet.
constexpr size_t kDigestDigits = 8;

const char* UnitOf(JobKind kind) { return kind == JobKind::kEvaluate ? "users" : "steps"; }

}  // namespace

absl::Status RunCommand(const RunFlags& flags, const std::atomic<int>& stop) {
  SLUICE_ASSIGN_OR_RETURN(const std::string yaml, ReadFile(flags.spec_path, kMaxSpecBytes));
  SLUICE_ASSIGN_OR_RETURN(const ResolvedSpec spec, ResolveSpec(yaml, flags.spec_path, flags.overrides));
  RunContext context;
  SLUICE_ASSIGN_OR_RETURN(context.options, OptionsFromSpec(spec.effective));
  context.spec_yaml = SpecToYaml(spec.effective);
  context.spec_digest = SpecDigest(spec.effective);
  context.run_folder = !flags.run_folder.empty()
                           ? flags.run_folder
                           : JoinPath(flags.runs_folder, absl::StrCat(context.options.name, "-",
                                                                      context.spec_digest.substr(0, kDigestDigits)));
  context.job_id = context.options.name;
  SLUICE_RETURN_IF_ERROR(MakeDirectories(context.run_folder));
  SLUICE_RETURN_IF_ERROR(WriteFileAtomically(JoinPath(context.run_folder, "spec.yaml"), context.spec_yaml));

  at::set_num_threads(flags.threads);
  const std::unique_ptr<Collective> collective = MakeSingleCollective();
  ConsoleMonitor monitor(UnitOf(context.options.kind), &stop, MonotonicClock());
  LocalReservations reservations(context.run_folder);
  context.collective = collective.get();
  context.monitor = &monitor;
  context.reservations = &reservations;
  context.now = MonotonicClock();
  monitor.ReportResult("run folder", context.run_folder);
  Metrics metrics;
  if (!flags.metrics_address.empty()) SLUICE_RETURN_IF_ERROR(metrics.Serve(flags.metrics_address).status());
  std::unique_ptr<RankServer> server;
  if (context.options.kind == JobKind::kRl) {
    SLUICE_ASSIGN_OR_RETURN(server, RankServer::Start(flags.address, &metrics, MonotonicClock()));
    context.rollouts = server.get();
    monitor.ReportResult("actors attach at", server->address());
  }
  return RunJob(context);
}

}  // namespace sluice::learner
