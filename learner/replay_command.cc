#include "learner/replay_command.h"

#include <algorithm>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/file/file.h"
#include "common/spec/spec.h"
#include "common/status/status.h"
#include "learner/record/advice.h"
#include "learner/record/record_file.h"
#include "learner/record/replay.h"
#include "learner/rpc/options_from_spec.h"

namespace sluice::learner {
namespace {

// A table of gains is a page, not a data set.
constexpr int64_t kMaxGainBytes = 1 << 20;
// Rows of one table: more are a mistake in the lists.
constexpr size_t kMaxCombinations = 10000;

// The effective spec that a run was made with.
absl::StatusOr<v1::JobSpec> SpecOfRun(const std::string& run_folder) {
  const std::string path = JoinPath(run_folder, "spec.yaml");
  SLUICE_ASSIGN_OR_RETURN(const std::string yaml, ReadFile(path, kMaxSpecBytes));
  SLUICE_ASSIGN_OR_RETURN(const ResolvedSpec spec, ResolveSpec(yaml, path));
  if (spec.effective.kind() != v1::JOB_KIND_RL) {
    return absl::InvalidArgumentError(absl::StrCat("'", run_folder, "' is not the run of an rl job"));
  }
  return spec.effective;
}

// The run's spec with another gate. Keys that the other kind does not read stay as they are, so that kinds can be
// crossed with keys of some of them; whether the gate can open at all is the replay's matter.
absl::StatusOr<RlOptions> WithGate(const v1::JobSpec& recorded, const std::vector<std::string>& overrides) {
  constexpr absl::string_view kGate = "rl.gate.";
  constexpr absl::string_view kKind = "rl.gate.kind=";
  const auto overridden = [&overrides, kGate](absl::string_view key) {
    return std::any_of(overrides.begin(), overrides.end(),
                       [&](const std::string& one) { return absl::StartsWith(one, absl::StrCat(kGate, key, "=")); });
  };
  std::vector<std::string> values, kinds;
  for (const std::string& one : overrides) {
    if (!absl::StartsWith(one, kGate)) {
      return absl::InvalidArgumentError(
          absl::StrCat("'", one, "': a record answers for other gates alone; want keys of rl.gate"));
    }
    (absl::StartsWith(one, kKind) ? kinds : values).push_back(one);
  }
  // The combined gate reads every key, and with all of the group as its zone it refuses no number of negatives.
  const std::string base = absl::StrCat("kind: rl\ndata: d\nrl:\n  group_size: ", recorded.rl().group_size(),
                                        "\n  lease_groups: ", recorded.rl().lease_groups(),
                                        "\n  groups_per_step: ", recorded.rl().groups_per_step(),
                                        "\n  gate: {kind: combined, negatives: 1, rho: 1}\n");
  SLUICE_ASSIGN_OR_RETURN(const ResolvedSpec changes, ResolveSpec(base, "--set", values));
  SLUICE_ASSIGN_OR_RETURN(const ResolvedSpec kind, ResolveSpec("kind: rl\ndata: d\n", "--kind", kinds));
  v1::GateSpec gate = changes.given.rl().gate();
  gate.clear_kind();
  if (!overridden("negatives")) gate.clear_negatives();
  if (!overridden("rho")) gate.clear_rho();
  gate.MergeFrom(kind.given.rl().gate());

  v1::JobSpec spec = recorded;
  spec.mutable_rl()->set_objective(v1::OBJECTIVE_GATED);
  v1::GateSpec* merged = spec.mutable_rl()->mutable_gate();
  // A threshold is of one kind's scale.
  if (gate.has_kind() && gate.kind() != merged->kind()) merged->clear_threshold();
  merged->MergeFrom(gate);
  return CopyOptions(spec).rl;
}

// Each list crossed with what is there so far; an empty one changes nothing.
template <typename T, typename Text>
void Cross(const std::string& key, const std::vector<T>& values, const Text& text,
           std::vector<std::vector<std::string>>* settings) {
  if (values.empty()) return;
  std::vector<std::vector<std::string>> crossed;
  for (const std::vector<std::string>& before : *settings) {
    for (const T& value : values) {
      crossed.push_back(before);
      crossed.back().push_back(absl::StrCat("rl.gate.", key, "=", text(value)));
    }
  }
  *settings = std::move(crossed);
}

void Print(const std::string& text) { std::fwrite(text.data(), 1, text.size(), stdout); }

}  // namespace

absl::Status ReplayCommand(const ReplayFlags& flags) {
  SLUICE_ASSIGN_OR_RETURN(const v1::JobSpec spec, SpecOfRun(flags.run_folder));
  const RlOptions recorded = CopyOptions(spec).rl;
  SLUICE_ASSIGN_OR_RETURN(const RecordedRun run, ReadRecord(flags.run_folder));
  std::vector<std::vector<std::string>> settings = {flags.overrides};
  const size_t combinations = std::max<size_t>(1, flags.kinds.size()) * std::max<size_t>(1, flags.taus.size()) *
                              std::max<size_t>(1, flags.rhos.size()) * std::max<size_t>(1, flags.negatives.size());
  if (combinations > kMaxCombinations) {
    return absl::InvalidArgumentError(
        absl::StrCat("the lists make ", combinations, " combinations; want at most ", kMaxCombinations));
  }
  const auto number = [](double value) { return absl::StrFormat("%.17g", value); };
  Cross(
      "kind", flags.kinds, [](const std::string& kind) { return kind; }, &settings);
  Cross("tau", flags.taus, number, &settings);
  Cross("rho", flags.rhos, number, &settings);
  Cross(
      "negatives", flags.negatives, [](int value) { return absl::StrCat(value); }, &settings);

  std::vector<ReplayOutcome> outcomes;
  SLUICE_ASSIGN_OR_RETURN(ReplayOutcome as_recorded, Replay(run, recorded, recorded));
  outcomes.push_back(std::move(as_recorded));
  for (const std::vector<std::string>& overrides : settings) {
    if (overrides.empty()) continue;
    SLUICE_ASSIGN_OR_RETURN(const RlOptions wanted, WithGate(spec, overrides));
    SLUICE_ASSIGN_OR_RETURN(ReplayOutcome outcome, Replay(run, recorded, wanted));
    outcomes.push_back(std::move(outcome));
  }
  if (flags.json) {
    nlohmann::ordered_json document;
    document["steps"] = run.steps.size();
    document["groups_left_out"] = run.left_out;
    document["rows"] = ReplayJson(outcomes);
    Print(document.dump(2) + "\n");
    return absl::OkStatus();
  }
  Print(absl::StrFormat("%d recorded steps; the first row is the recorded setting\n%s", run.steps.size(),
                        ReplayTable(outcomes)));
  if (run.left_out > 0) Print(absl::StrFormat("%d groups of steps that are not whole are left out\n", run.left_out));
  return absl::OkStatus();
}

absl::Status AdviseCommand(const AdviseFlags& flags) {
  SLUICE_ASSIGN_OR_RETURN(const v1::JobSpec spec, SpecOfRun(flags.run_folder));
  const RlOptions recorded = CopyOptions(spec).rl;
  SLUICE_ASSIGN_OR_RETURN(const RecordedRun run, ReadRecord(flags.run_folder));
  std::optional<std::vector<GainRow>> gains;
  if (!flags.gains.empty()) {
    SLUICE_ASSIGN_OR_RETURN(const std::string csv, ReadFile(flags.gains, kMaxGainBytes));
    absl::StatusOr<std::vector<GainRow>> rows = ParseGains(csv);
    if (!rows.ok()) return Annotate(rows.status(), absl::StrCat("'", flags.gains, "'"));
    gains = *std::move(rows);
  }
  SLUICE_ASSIGN_OR_RETURN(const Advice advice, Advise(run, recorded, gains));
  Print(flags.json ? AdviceJson(advice).dump(2) + "\n" : AdviceText(advice));
  return absl::OkStatus();
}

}  // namespace sluice::learner
