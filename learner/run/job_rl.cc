#include <torch/types.h>
#include <torch/utils.h>

#include <algorithm>
#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/collective/sums.h"
#include "common/failpoint/failpoint.h"
#include "common/market/truth_ranking.h"
#include "common/random/random.h"
#include "common/status/exit_code.h"
#include "common/status/status.h"
#include "learner/evaluate/context_file.h"
#include "learner/objective/control.h"
#include "learner/objective/judge.h"
#include "learner/objective/step_rewards.h"
#include "learner/publish/policy_store.h"
#include "learner/record/record_file.h"
#include "learner/run/item_vectors.h"
#include "learner/run/job_checkpoint.h"
#include "learner/run/job_common.h"
#include "learner/run/jobs.h"
#include "learner/run/operational_budget.h"
#include "learner/run/prompt_order.h"
#include "learner/run/results.h"
#include "learner/run/run_report.h"
#include "learner/run/share_state.h"
#include "learner/run/step_control.h"
#include "learner/run/validation.h"
#include "learner/train/adamw.h"
#include "learner/train/rl_step.h"
#include "learner/train/step_lanes.h"

namespace sluice::learner {
namespace {

// Without any result for this long a step gives up: no actor is there, or none can work.
constexpr absl::Duration kRolloutPatience = absl::Minutes(10);
// How often a job that waits for groups looks whether it is to stop.
constexpr absl::Duration kLookInterval = absl::Milliseconds(500);
// Prefix of the gate's statistics among a checkpoint's numbers.
constexpr char kGateNumbers[] = "gate/";
// And of its state.
constexpr char kGateStateNumbers[] = "gate_state/";

SplitLabel LabelOf(PromptSplit split) {
  switch (split) {
    case PromptSplit::kValidation:
      return SplitLabel::kValidation;
    case PromptSplit::kTest:
      return SplitLabel::kTest;
    case PromptSplit::kReserved:
      return SplitLabel::kReserved;
    case PromptSplit::kTrain:
      break;
  }
  return SplitLabel::kTrain;
}

// One rl job on one rank.
class RlJob {
 public:
  explicit RlJob(const RunContext& context) : context_(context), options_(context.options.rl) {}

  absl::Status Run();

 private:
  absl::Status Prepare();
  // What the value loss, the search by value and the semantic reward need.
  absl::Status PrepareValues();
  // [members][L] of a judged group.
  std::vector<std::vector<double>> StepRewardsOf(const RlGroup& group) const;
  absl::Status OpenRollouts();
  absl::Status PublishNow();
  // Keeps the window of open steps full: the present one and those that staleness allows ahead.
  absl::Status IssueAhead();
  // One look at the present step's groups: true once every rank has all of its own, in taken_. Collective.
  absl::StatusOr<bool> AwaitGroups();
  absl::Status TrainStep(const StepDecision& decision);
  absl::StatusOr<std::vector<RlGroup>> JudgeStep(const std::vector<TakenGroup>& taken, JudgeStatistics* statistics);
  // Lets a control decide in place of the gate, over the groups of all ranks. Collective.
  absl::Status ControlGroups(std::vector<RlGroup>* groups);
  std::vector<int32_t> LeavesOf(const std::vector<int32_t>& items) const;
  // The level-1 token of most of the prompt's items.
  int32_t RegionOfPrompt(const Prompt& prompt) const;
  // InvalidArgument: the gate or the ranker asks for a truth that the data set lacks.
  absl::Status LoadTruth();
  // Whether the ranker is right about this user, if the data set knows.
  std::optional<bool> Reliable(const Prompt& prompt) const;
  // Adds what the step said of the ranker's regions, over the groups of all ranks, to the gate's state. Collective.
  absl::Status ObserveRegions(const std::vector<RlGroup>& groups);
  // Opens this rank's file of recorded groups, after what an abandoned timeline left in it is gone. Collective.
  absl::Status OpenRecord(const std::optional<CheckpointState>& state);
  // Writes the judged groups of the present step.
  absl::Status RecordGroups(const std::vector<TakenGroup>& taken, const std::vector<RlGroup>& groups);
  // The settings of the present step: dose control moves lambda.
  RlOptions StepOptions() const;
  // The policy that the KL is measured to, as the job starts or as `state` left it.
  absl::Status MakeReference(const std::optional<CheckpointState>& state);
  // Moves a mixed reference after the step that was committed.
  void MixReference();
  // Passes on what the source says of the ranker's health, and says what the job does in that light.
  void TellPhase(const std::string& phase);
  // Counts the step against the operational budget, and says when an outage begins and ends.
  absl::Status TellOutage(const std::vector<TakenGroup>& taken, double closed_share);
  // Held-out prompts: contexts.csv, as it was when `step` steps were committed; and one line more a judged group.
  absl::Status OpenContexts(uint64_t step);
  absl::Status RecordContexts(const std::vector<RlGroup>& groups);
  absl::Status ValidateNow();
  // cancelling: what is open is about to be cancelled. It is told so, but the checkpoint keeps it open, for whoever
  // resumes the job.
  absl::Status SaveCheckpoint(JobCheckpoints::Writing writing, bool cancelling = false);
  // Adds a line to the terminal table that the next checkpoint takes.
  void NoteEnd(uint64_t ordinal, TerminalState state, const std::string& reason);
  absl::Status Finish();

  absl::StatusOr<JudgeStatistics> SumOverRanks(const JudgeStatistics& mine);
  absl::StatusOr<LedgerBalance> TotalBalance();
  // The job has held-out prompts, to be judged and not trained on.
  bool JudgesHeldOut() const {
    return options_.prompt_split == PromptSplit::kValidation || options_.prompt_split == PromptSplit::kTest;
  }
  // Which prompt each ordinal is.
  PromptOrder Prompts() const {
    return PromptOrder(*dataset_, examples_, DeriveSeed(context_.options.seed, {kPromptSeed}));
  }
  double seconds() const { return absl::ToDoubleSeconds(control_->spent()); }
  uint64_t total_steps() const { return static_cast<uint64_t>(options_.steps); }

  const RunContext& context_;
  const RlOptions& options_;
  std::unique_ptr<StepControl> control_;
  std::shared_ptr<const Dataset> dataset_;
  std::unique_ptr<Policy> policy_;
  std::unique_ptr<Policy> reference_;  // null: no KL
  LeafVectors vectors_;                // of the starting policy or given; empty unless they are compared
  std::vector<double> step_weights_;   // [L]; empty without a value loss
  std::unique_ptr<StepLanes> lanes_;
  std::unique_ptr<RunFolder> folder_;
  std::unique_ptr<AdamW> optimizer_;
  std::unique_ptr<JobCheckpoints> checkpoints_;
  std::vector<Example> examples_;
  std::unique_ptr<Validation> validation_;
  SnapshotEncoder encoder_;
  GroupSource* source_ = nullptr;

  bool resumed_ = false;                          // from a checkpoint
  uint64_t step_ = 0;                             // steps that are committed
  uint64_t issued_steps_ = 0;                     // steps whose ordinals are issued
  uint64_t version_ = 0;                          // of the published weights; until then the checkpoint's
  std::optional<std::vector<TakenGroup>> taken_;  // of the present step, once they are all there
  std::optional<absl::Time> waiting_since_;       // for them
  absl::Duration idle_;                           // without any of them coming
  OperationalBudget budget_;
  JudgeStatistics judged_;                         // of all steps and ranks
  GateState gate_state_;                           // as the committed steps left it; the same on every rank
  std::function<bool(int32_t user)> is_reliable_;  // truth of a generated data set; null: there is none
  std::unique_ptr<RecordWriter> record_;           // null: groups are not recorded
  std::string ended_;                              // lines of the terminal table since the last checkpoint
  std::string outage_;                             // why scores failed last, on this rank
  std::string ending_;
};

absl::Status RlJob::Prepare() {
  SLUICE_RETURN_IF_ERROR(
      ValidateSlices(options_.groups_per_step, options_.lease_groups, context_.collective->world_size()));
  if (options_.objective == ObjectiveKind::kGated) {
    SLUICE_RETURN_IF_ERROR(ValidateGate(options_.gate, options_.group_size));
  }
  SLUICE_ASSIGN_OR_RETURN(dataset_, Dataset::Load(context_.options.data));
  SLUICE_RETURN_IF_ERROR(LoadTruth());
  SLUICE_ASSIGN_OR_RETURN(policy_, MakePolicy(context_, *dataset_));
  SLUICE_RETURN_IF_ERROR(PrepareValues());
  SLUICE_ASSIGN_OR_RETURN(folder_, RunFolder::Open(context_.run_folder, context_.now));
  optimizer_ =
      std::make_unique<AdamW>(policy_->parameters(), policy_->gradients(), policy_->decay_mask(), options_.optimizer);
  budget_ = OperationalBudget(options_.operational_share, options_.operational_steps, options_.operational_s);
  examples_ = dataset_->Examples(LabelOf(options_.prompt_split));
  if (examples_.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat("the data set '", dataset_->folder(), "' has no ",
                     options_.prompt_split == PromptSplit::kReserved
                         ? "event that is reserved for rl; prepare it with prepare.rl_events or "
                           "prepare.market.rl_users, or remove rl.prompt_split"
                         : "event with a history to draw prompts from"));
  }
  validation_ = std::make_unique<Validation>(context_, *dataset_, options_.validation, *folder_);

  checkpoints_ = std::make_unique<JobCheckpoints>(context_, *folder_, DataDigest(*dataset_));
  SLUICE_ASSIGN_OR_RETURN(const std::optional<CheckpointState> state,
                          checkpoints_->Resume(policy_.get(), optimizer_.get()));
  SLUICE_RETURN_IF_ERROR(SLUICE_FAILPOINT_STATUS("learner/resumed"));
  SLUICE_RETURN_IF_ERROR(MakeReference(state));
  SLUICE_ASSIGN_OR_RETURN(
      lanes_, StepLanes::Create(policy_.get(), reference_.get(), LanesFor(*policy_, at::get_num_threads())));
  control_ = std::make_unique<StepControl>(context_, state ? absl::Seconds(state->seconds) : absl::ZeroDuration());
  SLUICE_ASSIGN_OR_RETURN(
      auto latest, RewindMetrics(context_, folder_.get(), state ? std::optional<uint64_t>(state->step) : std::nullopt));
  validation_->SetLatest(std::move(latest));
  SLUICE_RETURN_IF_ERROR(OpenContexts(state ? state->step : 0));
  SLUICE_RETURN_IF_ERROR(OpenRecord(state));
  if (!state) return absl::OkStatus();
  resumed_ = true;
  step_ = issued_steps_ = state->step;
  version_ = state->policy_version;
  budget_.Restore(state->numbers);
  validation_->Restore(state->numbers);
  judged_.Restore(kGateNumbers, state->numbers);
  gate_state_.Restore(kGateStateNumbers, state->numbers);
  if (context_.is_first()) {
    context_.monitor->ReportLog(absl::StrCat("resumed from the checkpoint of step ", step_));
  }
  return absl::OkStatus();
}

absl::Status RlJob::PrepareValues() {
  const int levels = dataset_->trie().levels();
  if (options_.sampler == SamplerKind::kValueGuided) {
    const absl::Status status = ResolvedSearch(options_, levels).Validate(levels);
    if (!status.ok()) return Annotate(status, "rl.value_search");
  }
  const bool has_value_loss = options_.value.loss_weight > 0;
  if (has_value_loss) {
    absl::StatusOr<std::vector<double>> weights = ParseStepWeights(options_.value.step_weights, levels);
    if (!weights.ok()) return Annotate(weights.status(), "rl.value.step_weights");
    step_weights_ = *std::move(weights);
  }
  if (has_value_loss || options_.reward.kind == RewardKind::kSemantic) {
    // Before a checkpoint is read, so that a resumed job compares the same vectors.
    SLUICE_ASSIGN_OR_RETURN(vectors_, ReadItemVectors(options_.item_vectors, *dataset_, *policy_));
  }
  return absl::OkStatus();
}

std::vector<std::vector<double>> RlJob::StepRewardsOf(const RlGroup& group) const {
  std::vector<absl::Span<const int32_t>> tokens;
  std::vector<absl::Span<const float>> vectors;
  const Trie& trie = dataset_->trie();
  for (const CompletionPlan& member : group.plan.completions) {
    const int32_t leaf = member.source == CompletionPlan::kTarget
                             ? group.target_leaf
                             : group.group->completions[static_cast<size_t>(member.source)].leaf;
    tokens.push_back(trie.TokensOfLeaf(leaf));
    vectors.push_back(vectors_.Of(leaf));
  }
  return StepRewards(tokens, trie.TokensOfLeaf(group.target_leaf), vectors, vectors_.Of(group.target_leaf),
                     step_weights_, options_.value.embedding);
}

absl::Status RlJob::MakeReference(const std::optional<CheckpointState>& state) {
  if (options_.kl.beta == 0 || options_.objective == ObjectiveKind::kNllOnly) return absl::OkStatus();
  SLUICE_ASSIGN_OR_RETURN(reference_, MakePolicy(context_, *dataset_));
  const torch::NoGradGuard no_grad;
  if (!state || !state->reference.defined()) return absl::OkStatus();
  if (state->reference.sizes() != reference_->parameters().sizes()) {
    return absl::DataLossError(absl::StrCat("the checkpoint's reference policy has ", state->reference.numel(),
                                            " parameters, the job's model ", reference_->parameters().numel()));
  }
  reference_->parameters().copy_(state->reference);
  return absl::OkStatus();
}

void RlJob::MixReference() {
  if (reference_ == nullptr || options_.kl.reference != ReferenceKind::kMixed) return;
  if (step_ % static_cast<uint64_t>(options_.kl.mix_every) != 0) return;
  const torch::NoGradGuard no_grad;
  reference_->parameters().lerp_(policy_->parameters(), options_.kl.mix);
}

absl::Status RlJob::OpenRollouts() {
  RolloutJob job;
  job.job_id = context_.job_id;
  job.epoch = context_.collective->epoch();
  job.seed = DeriveSeed(context_.options.seed, {kLeaseSeed});
  job.model_config_json = policy_->config().ToJson();
  job.dataset = dataset_;
  job.options = options_;
  job.groups_per_step = options_.groups_per_step / context_.collective->world_size();
  SLUICE_ASSIGN_OR_RETURN(source_, context_.rollouts->StartJob(job));
  return checkpoints_->RestoreLedger(source_);
}

absl::Status RlJob::PublishNow() {
  SLUICE_ASSIGN_OR_RETURN(version_, PublishPolicy(context_, *policy_, version_, source_, &encoder_));
  return absl::OkStatus();
}

absl::Status RlJob::ValidateNow() {
  // What was published last is what is validated: it leaves this rank after every update.
  return validation_->Run(*policy_, step_, total_steps(), seconds(), {context_.rollouts->evaluation(), version_});
}

absl::Status RlJob::OpenContexts(uint64_t step) {
  if (!JudgesHeldOut() || !context_.is_first()) return absl::OkStatus();
  std::string kept = ContextsHeader();
  if (step > 0 && PathExists(folder_->contexts())) {
    SLUICE_ASSIGN_OR_RETURN(const std::string text, ReadFile(folder_->contexts(), kMaxContextBytes));
    absl::StatusOr<std::vector<ContextRow>> rows = ContextsFromText(text);
    if (!rows.ok()) return Annotate(rows.status(), folder_->contexts());
    for (const ContextRow& row : *rows) {
      if (row.step < step) absl::StrAppend(&kept, ContextLine(row));
    }
  }
  return WriteFileAtomically(folder_->contexts(), kept);
}

absl::Status RlJob::RecordContexts(const std::vector<RlGroup>& groups) {
  if (!JudgesHeldOut()) return absl::OkStatus();
  const PromptOrder order = Prompts();
  std::string mine;
  for (const RlGroup& group : groups) {
    if (!group.plan.has_scores) continue;  // not judged
    const Example& example = order.ExampleAt(group.plan.ordinal);
    const GateDiagnostics &found = group.plan.verdict.diagnostics, &random = group.plan.random;
    absl::StrAppend(&mine, ContextLine({.step = step_,
                                        .user = example.user,
                                        .position = example.position,
                                        .difficult = found.difficult,
                                        .discriminable = found.in_head && found.suppressed,
                                        .rank_policy = found.rank_policy,
                                        .rank_ranker = found.rank_ranker,
                                        .random_discriminable = random.in_head && random.suppressed,
                                        .random_rank_ranker = random.rank_ranker}));
  }
  SLUICE_ASSIGN_OR_RETURN(const std::vector<std::string> lines, GatherStrings(*context_.collective, mine));
  if (!context_.is_first()) return absl::OkStatus();
  SLUICE_ASSIGN_OR_RETURN(const std::unique_ptr<AppendFile> file, AppendFile::Open(folder_->contexts()));
  for (std::string of_rank : lines) {
    if (of_rank.empty()) continue;
    of_rank.pop_back();  // Append ends the line
    SLUICE_RETURN_IF_ERROR(file->Append(of_rank));
  }
  return absl::OkStatus();
}

absl::Status RlJob::IssueAhead() {
  const uint64_t window_end = std::min(total_steps(), step_ + 1 + static_cast<uint64_t>(options_.staleness));
  const PromptOrder order = Prompts();
  for (; issued_steps_ < window_end; ++issued_steps_) {
    const uint64_t groups = static_cast<uint64_t>(options_.groups_per_step);
    if (context_.is_first()) {
      SLUICE_RETURN_IF_ERROR(context_.reservations->ReserveOrdinals(issued_steps_, issued_steps_ * groups, groups));
    }
    const OrdinalRange slice =
        SliceOfStep(issued_steps_, groups, context_.collective->rank(), context_.collective->world_size());
    SLUICE_RETURN_IF_ERROR(SLUICE_FAILPOINT_STATUS("learner/before_issue"));
    SLUICE_RETURN_IF_ERROR(source_->Issue(issued_steps_, order.Range(slice)));
    SLUICE_RETURN_IF_ERROR(SLUICE_FAILPOINT_STATUS("learner/after_issue"));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<RlGroup>> RlJob::JudgeStep(const std::vector<TakenGroup>& taken,
                                                      JudgeStatistics* statistics) {
  JudgeContext judge;
  judge.learner_version = version_;
  judge.catalog_version = dataset_->trie().version();
  judge.levels = dataset_->trie().levels();
  judge.random_ranker_seed = DeriveSeed(context_.options.seed, {kRandomRankerSeed});
  if (vectors_.width > 0) judge.vectors = &vectors_;
  judge.gate_state = &gate_state_;
  const RlOptions options = StepOptions();
  std::vector<RlGroup> groups;
  for (const TakenGroup& one : taken) {
    if (one.bad_data) continue;
    RlGroup group;
    group.target_leaf = dataset_->trie().LeafOfItem(one.prompt.target);
    group.group = one.group ? &*one.group : nullptr;
    SLUICE_ASSIGN_OR_RETURN(group.input, policy_->EncodePrompt(one.prompt.history));
    const std::vector<int32_t> history_leaves =
        group.group != nullptr ? LeavesOf(group.group->history_items) : std::vector<int32_t>();
    SLUICE_ASSIGN_OR_RETURN(group.plan, Judge({.ordinal = one.prompt.ordinal,
                                               .group = group.group,
                                               .target_leaf = group.target_leaf,
                                               .target_tokens = dataset_->trie().TokensOfLeaf(group.target_leaf),
                                               .history_leaves = history_leaves,
                                               .region = RegionOfPrompt(one.prompt),
                                               .reliable = Reliable(one.prompt),
                                               .reward_outage = one.reward_outage},
                                              options, judge));
    if (!step_weights_.empty() && !group.plan.completions.empty()) group.step_rewards = StepRewardsOf(group);
    groups.push_back(std::move(group));
  }
  SLUICE_RETURN_IF_ERROR(ControlGroups(&groups));
  for (const RlGroup& group : groups) statistics->Add(group.plan, group.group);
  return groups;
}

absl::Status RlJob::ControlGroups(std::vector<RlGroup>* groups) {
  if (options_.objective != ObjectiveKind::kGated || options_.gate.control == GateControl::kNone) {
    return absl::OkStatus();
  }
  // Each group's verdict at its place in the step: a sum with zeros is a copy, and the outcome is the same for any
  // number of ranks.
  const uint64_t first = step_ * static_cast<uint64_t>(options_.groups_per_step);
  std::vector<double> numbers(static_cast<size_t>(options_.groups_per_step), 0);
  for (const RlGroup& group : *groups) {
    numbers[static_cast<size_t>(group.plan.ordinal - first)] = static_cast<double>(SayOf(group.plan));
  }
  SLUICE_RETURN_IF_ERROR(sluice::SumOverRanks(*context_.collective, &numbers));
  std::vector<GateSay> says;
  for (const double number : numbers) says.push_back(static_cast<GateSay>(static_cast<int>(number)));
  const RlOptions options = StepOptions();
  const std::vector<double> admission = ControlledAdmission(says, options_.gate.control, options_.gate.control_rate,
                                                            DeriveSeed(context_.options.seed, {kControlSeed, step_}));
  for (RlGroup& group : *groups) {
    if (SayOf(group.plan) == GateSay::kNotAsked) continue;
    ApplyControl(admission[static_cast<size_t>(group.plan.ordinal - first)], options, &group.plan);
  }
  return absl::OkStatus();
}

absl::Status RlJob::ObserveRegions(const std::vector<RlGroup>& groups) {
  if (options_.objective != ObjectiveKind::kGated || !GatePools(options_.gate)) return absl::OkStatus();
  const uint64_t first = step_ * static_cast<uint64_t>(options_.groups_per_step);
  std::vector<GateObservation> observations;
  std::vector<size_t> places;
  for (const RlGroup& group : groups) {
    observations.push_back(group.plan.observation);
    places.push_back(static_cast<size_t>(group.plan.ordinal - first));
  }
  std::vector<double> numbers = PackObservations(observations, places, static_cast<size_t>(options_.groups_per_step));
  SLUICE_RETURN_IF_ERROR(sluice::SumOverRanks(*context_.collective, &numbers));
  gate_state_.Observe(UnpackObservations(numbers), options_.gate.pool_decay);
  return absl::OkStatus();
}

RlOptions RlJob::StepOptions() const {
  RlOptions options = options_;
  options.lambda *= gate_state_.lambda_scale();
  return options;
}

std::vector<int32_t> RlJob::LeavesOf(const std::vector<int32_t>& items) const {
  std::vector<int32_t> leaves;
  for (const int32_t item : items) leaves.push_back(dataset_->trie().LeafOfItem(item));
  return leaves;
}

int32_t RlJob::RegionOfPrompt(const Prompt& prompt) const {
  std::vector<int32_t> codes;
  for (const int32_t item : prompt.history) {
    codes.push_back(dataset_->trie().TokensOfLeaf(dataset_->trie().LeafOfItem(item))[0]);
  }
  return RegionOf(codes);
}

absl::Status RlJob::LoadTruth() {
  const bool of_known_error = IsTruthRankingName(options_.reward.ranker);
  if (options_.objective == ObjectiveKind::kGated && options_.gate.kind == GateKind::kOracle) {
    if (dataset_->truth() == nullptr) {
      return absl::InvalidArgumentError(
          absl::StrCat("rl.gate.kind oracle asks for which users the ranker is right, which only a generated data set "
                       "knows; '",
                       dataset_->folder(), "' has no truth. Use a data set that a market made, or another kind."));
    }
    if (!of_known_error) {
      return absl::InvalidArgumentError(
          absl::StrCat("rl.gate.kind oracle knows where a ranker of known error is right; of '", options_.reward.ranker,
                       "' nobody knows it. Set rl.reward.ranker to one such as truth:pop:0.5, or take another kind."));
    }
  }
  // Records hold the truth whatever the gate. A ranker that is not there is refused now: an outage of every score would
  // say less.
  if (!of_known_error || (dataset_->truth() == nullptr && !NeedsScores(options_))) return absl::OkStatus();
  SLUICE_ASSIGN_OR_RETURN(const TruthRanking ranking,
                          TruthRanking::FromName(dataset_->shared_truth(), options_.reward.ranker));
  is_reliable_ = [ranking](int32_t user) { return ranking.Reliable(user); };
  return absl::OkStatus();
}

std::optional<bool> RlJob::Reliable(const Prompt& prompt) const {
  if (!is_reliable_ || prompt.user < 0) return std::nullopt;
  return is_reliable_(prompt.user);
}

absl::Status RlJob::OpenRecord(const std::optional<CheckpointState>& state) {
  if (!options_.record) return absl::OkStatus();
  const std::string folder = RecordFolder(context_.run_folder);
  if (context_.is_first()) {
    SLUICE_RETURN_IF_ERROR(RewindRecord(folder, state ? std::optional<uint64_t>(state->step) : std::nullopt));
  }
  // The others open their files after that.
  std::vector<double> meet = {1};
  SLUICE_RETURN_IF_ERROR(sluice::SumOverRanks(*context_.collective, &meet));
  RecordHeader header;
  header.catalog_version = dataset_->trie().version();
  header.levels = static_cast<uint32_t>(dataset_->trie().levels());
  header.groups_per_step = static_cast<uint32_t>(options_.groups_per_step);
  const int64_t budget = (static_cast<int64_t>(options_.record_mib) << 20) / context_.collective->world_size();
  SLUICE_ASSIGN_OR_RETURN(record_, RecordWriter::Open(folder, context_.collective->rank(), header, budget));
  return absl::OkStatus();
}

absl::Status RlJob::RecordGroups(const std::vector<TakenGroup>& taken, const std::vector<RlGroup>& groups) {
  if (record_ == nullptr || record_->full()) return absl::OkStatus();
  std::vector<GroupRecord> records;
  size_t judged = 0;
  for (const TakenGroup& one : taken) {
    GroupRecord& record = records.emplace_back();
    record.step = step_;
    record.learner_version = version_;
    record.ordinal = one.prompt.ordinal;
    record.user = one.prompt.user;
    record.target = one.prompt.target;
    record.bad_data = one.bad_data;
    if (one.bad_data) continue;
    const RlGroup& group = groups[judged++];
    record.target_leaf = group.target_leaf;
    const absl::Span<const int32_t> tokens = dataset_->trie().TokensOfLeaf(group.target_leaf);
    record.target_tokens.assign(tokens.begin(), tokens.end());
    record.region = RegionOfPrompt(one.prompt);
    record.reliable = Reliable(one.prompt);
    if (one.group) {
      record.group = *one.group;
      std::erase_if(record.group->heads, [&](const ScoreHead& head) { return head.name != options_.reward.head; });
      record.history_leaves = LeavesOf(one.group->history_items);
    }
    record.gate_open = group.plan.gate_open;
    record.gate_reason = group.plan.gate_reason;
    record.reason = group.plan.verdict.reason;
    record.admission = group.plan.admission;
    record.reliability = group.plan.verdict.reliability;
  }
  SLUICE_ASSIGN_OR_RETURN(const bool written, record_->Append(records));
  if (!written) {
    context_.monitor->ReportLog(absl::StrCat("the record of groups has reached its ", options_.record_mib,
                                             " MiB (rl.record_mib); groups from step ", step_, " on are not recorded"));
  }
  return absl::OkStatus();
}

absl::StatusOr<JudgeStatistics> RlJob::SumOverRanks(const JudgeStatistics& mine) {
  std::vector<double> sums = mine.ToVector();
  SLUICE_RETURN_IF_ERROR(sluice::SumOverRanks(*context_.collective, &sums));
  return JudgeStatistics::FromVector(sums);
}

absl::StatusOr<LedgerBalance> RlJob::TotalBalance() {
  const LedgerBalance mine = source_->Balance();
  at::Tensor sums = torch::tensor(
      {static_cast<int64_t>(mine.issued), static_cast<int64_t>(mine.trained), static_cast<int64_t>(mine.dropped),
       static_cast<int64_t>(mine.failed), static_cast<int64_t>(mine.cancelled), static_cast<int64_t>(mine.open)},
      torch::kLong);
  SLUICE_RETURN_IF_ERROR(context_.collective->AllReduceSum(sums));
  const int64_t* s = sums.const_data_ptr<int64_t>();
  LedgerBalance total;
  total.issued = static_cast<uint64_t>(s[0]);
  total.trained = static_cast<uint64_t>(s[1]);
  total.dropped = static_cast<uint64_t>(s[2]);
  total.failed = static_cast<uint64_t>(s[3]);
  total.cancelled = static_cast<uint64_t>(s[4]);
  total.open = static_cast<uint64_t>(s[5]);
  // Steps are committed whole and in order, so what is committed ends at a step's end.
  total.frontier = step_ * static_cast<uint64_t>(options_.groups_per_step);
  return total;
}

void RlJob::TellPhase(const std::string& phase) {
  for (const std::string& line : source_->TakeRewardNews()) context_.monitor->ReportLog(line);
  const std::string trouble = source_->RewardTrouble();
  context_.monitor->SetPhase(trouble.empty() ? phase : absl::StrCat("DEGRADED (rewards: ", trouble, "), ", phase));
}

absl::StatusOr<bool> RlJob::AwaitGroups() {
  TellPhase("waiting for groups");
  if (!waiting_since_) waiting_since_ = context_.now();
  if (!taken_) {
    const absl::Time began = context_.now();
    absl::StatusOr<std::vector<TakenGroup>> taken = [this] {
      const Blocked::Wait wait(context_.waits != nullptr ? &context_.waits->groups : nullptr);
      return source_->Wait(step_, kLookInterval);
    }();
    if (taken.ok()) {
      taken_ = *std::move(taken);
    } else if (!absl::IsUnavailable(taken.status())) {
      return taken.status();
    } else {
      // Wait goes on while groups come: one that took longer saw progress.
      idle_ = context_.now() - began < 2 * kLookInterval ? idle_ + kLookInterval : absl::ZeroDuration();
      if (idle_ >= kRolloutPatience) return taken.status();
    }
  }
  at::Tensor ready = torch::tensor({taken_ ? int64_t{1} : int64_t{0}}, torch::kLong);
  SLUICE_RETURN_IF_ERROR(context_.collective->AllReduceSum(ready));
  return ready.item<int64_t>() == context_.collective->world_size();
}

absl::Status RlJob::TrainStep(const StepDecision& decision) {
  const std::vector<TakenGroup> taken = *std::exchange(taken_, std::nullopt);
  const absl::Time waiting_since = *std::exchange(waiting_since_, std::nullopt);
  idle_ = absl::ZeroDuration();
  const absl::Time training_since = context_.now();
  TellPhase("training");
  SLUICE_RETURN_IF_ERROR(SLUICE_FAILPOINT_STATUS("learner/groups_taken"));

  JudgeStatistics mine;
  SLUICE_ASSIGN_OR_RETURN(const std::vector<RlGroup> groups, JudgeStep(taken, &mine));
  SLUICE_ASSIGN_OR_RETURN(const JudgeStatistics statistics, SumOverRanks(mine));
  SLUICE_RETURN_IF_ERROR(RecordContexts(groups));

  RlStepSettings settings;
  settings.grpo_space = options_.grpo_space;
  settings.nll_space = options_.nll_space;
  settings.nll_groups = options_.objective == ObjectiveKind::kGrpoOnly ? 0 : statistics.groups;
  settings.policy_loss = options_.policy_loss;
  settings.value = {options_.value.loss_weight, options_.value.gamma, options_.value.bootstrap, statistics.tokens};
  const bool admitted_alone =
      options_.objective == ObjectiveKind::kGated && options_.gate.normalization == GateNormalization::kAdmitted;
  if (options_.policy_loss.mean == TokenMean::kStep) {
    settings.grpo_groups = admitted_alone ? statistics.admitted_tokens : statistics.tokens;
  } else {
    settings.grpo_groups = admitted_alone ? statistics.admitted : statistics.groups;
  }
  const double progress = control_->Progress(static_cast<double>(step_) / static_cast<double>(total_steps()), decision);
  settings.learning_rate =
      ScheduledLearningRate(options_.optimizer, progress, 1.0 / static_cast<double>(total_steps()));
  settings.dropout = options_.dropout;
  settings.dropout_seed = DeriveSeed(context_.options.seed, {kDropoutSeed, step_});
  settings.learner_version = version_;
  SLUICE_ASSIGN_OR_RETURN(const RlStepResult result,
                          RlStep(*lanes_, dataset_->trie(), *optimizer_, *context_.collective, groups, settings));

  std::vector<Verdict> verdicts;
  size_t judged = 0;
  double stalest = 0;
  for (const TakenGroup& one : taken) {
    if (one.bad_data) {
      verdicts.push_back({one.prompt.ordinal, TerminalState::kFailed, one.error});
      NoteEnd(one.prompt.ordinal, TerminalState::kFailed, "bad_data");
      continue;
    }
    const GroupPlan& plan = groups[judged++].plan;
    stalest = std::max(stalest, static_cast<double>(plan.staleness));
    const std::string reason(GateReasonName(plan.verdict.reason));
    verdicts.push_back({one.prompt.ordinal, TerminalState::kTrained, reason});
    NoteEnd(one.prompt.ordinal, TerminalState::kTrained, reason);
  }
  SLUICE_RETURN_IF_ERROR(RecordGroups(taken, groups));
  SLUICE_RETURN_IF_ERROR(ObserveRegions(groups));
  SLUICE_RETURN_IF_ERROR(SLUICE_FAILPOINT_STATUS("learner/before_commit"));
  SLUICE_RETURN_IF_ERROR(source_->Commit(step_, verdicts));
  SLUICE_RETURN_IF_ERROR(SLUICE_FAILPOINT_STATUS("learner/after_commit"));
  const double lambda = StepOptions().lambda;
  // Groups that the gate was not asked about say nothing of what it admits: an outage must not raise lambda.
  if (options_.gate.target_dose > 0 && statistics.asked() > 0) {
    gate_state_.ControlDose(statistics.asked_admission_rate(), options_.lambda, options_.gate);
  }
  ++step_;
  judged_.Add(statistics);
  MixReference();
  SLUICE_RETURN_IF_ERROR(PublishNow());

  std::map<std::string, double> values = {
      {"loss/nll", result.nll},
      {"loss/grpo", result.grpo_loss},
      {"gradient_norm", result.gradient_norm},
      {"learning_rate", settings.learning_rate},
      {"gate/open_rate", statistics.admission_rate()},
      {"seconds/wait", absl::ToDoubleSeconds(training_since - waiting_since)},
      {"seconds/train", absl::ToDoubleSeconds(context_.now() - training_since)},
      {"policy_version", static_cast<double>(version_)},
      {"degraded", budget_.Counts(statistics.degraded_share()) ? 1.0 : 0.0},
  };
  if (options_.gate.target_dose > 0) {
    values["dose/lambda"] = lambda;
    values["dose/value"] = lambda * statistics.admission_rate();
  }
  // What no group had is not measured, and has no value.
  if (statistics.with_rewards > 0) {
    values["reward/mean"] = statistics.reward_mean();
    values["reward/target_mean"] = statistics.target_reward_mean();
    values["group/zero_advantage_share"] = statistics.zero_advantage_share();
  }
  if (statistics.sampled > 0) {
    values["group/target_sampled_share"] = statistics.target_sampled_share();
    values["group/diversity"] = statistics.diversity();
    values["staleness/mean"] = statistics.mean_staleness();
    values["staleness/max"] = stalest;
  }
  if (statistics.judged > 0) values["group/gate_open_share"] = statistics.gate_open_rate();
  if (result.kl_tokens > 0) values["kl/mean"] = result.kl;
  if (result.values > 0) values["value/loss"] = result.value_loss;
  if (result.compared > 0) {
    values["mismatch/mean"] = result.mismatch_mean;
    values["mismatch/max"] = result.mismatch_max;
  }
  for (int reason = 0; reason < kNumGateReasons; ++reason) {
    values[absl::StrCat("gate/", GateReasonName(static_cast<GateReason>(reason)))] =
        statistics.groups > 0 ? statistics.by_reason[static_cast<size_t>(reason)] / statistics.groups : 0;
  }
  SLUICE_RETURN_IF_ERROR(RecordMetrics(context_, folder_.get(), step_, total_steps(), seconds(), values));
  return TellOutage(taken, statistics.degraded_share());
}

absl::Status RlJob::TellOutage(const std::vector<TakenGroup>& taken, double closed_share) {
  for (const TakenGroup& one : taken) {
    if (!one.group || one.group->score_error.empty()) continue;
    outage_ = absl::StrCat("scores: ", one.group->score_error);
    break;
  }
  const bool was_out = budget_.steps() > 0;
  // All ranks must come to one verdict, so they go by one clock.
  std::vector<double> clock = {context_.is_first() ? seconds() : 0};
  if (budget_.Counts(closed_share)) SLUICE_RETURN_IF_ERROR(sluice::SumOverRanks(*context_.collective, &clock));
  const absl::Status status = budget_.Add(closed_share, clock[0], options_.on_reward_outage, outage_);
  const bool is_out = budget_.steps() > 0;
  // Said when it begins and when it ends: a job that trains on logged truth alone must not look like one that works.
  if (context_.is_first() && is_out && !was_out) {
    context_.monitor->ReportLog(absl::StrFormat(
        "step %d: %.0f %% of the groups closed for operational reasons and trained on logged truth alone%s", step_,
        100 * closed_share, outage_.empty() ? "; see the gate reasons" : absl::StrCat("; ", outage_)));
  }
  if (context_.is_first() && was_out && !is_out) {
    context_.monitor->ReportLog(absl::StrFormat("step %d: groups are judged again", step_));
  }
  return status;
}

void RlJob::NoteEnd(uint64_t ordinal, TerminalState state, const std::string& reason) {
  const Example& example = Prompts().ExampleAt(ordinal);
  ended_ += TerminalLine({ordinal, example.user, example.position, state, reason, step_});
}

absl::Status RlJob::SaveCheckpoint(JobCheckpoints::Writing writing, bool cancelling) {
  context_.monitor->SetPhase("checkpoint");
  SLUICE_ASSIGN_OR_RETURN(LedgerBalance balance, TotalBalance());
  if (!balance.Holds()) {
    return absl::InternalError(absl::StrCat("the ledger does not balance at step ", step_, ": issued ", balance.issued,
                                            ", trained ", balance.trained, ", dropped ", balance.dropped, ", failed ",
                                            balance.failed, ", cancelled ", balance.cancelled, ", open ", balance.open,
                                            "; no checkpoint was written, the previous one stands"));
  }
  if (cancelling) {
    balance.cancelled += balance.open;
    balance.open = 0;
    balance.frontier = balance.issued;
  }
  CheckpointState state;
  state.step = step_;
  state.policy_version = version_;
  state.seconds = seconds();
  budget_.Save(&state.numbers);
  validation_->Save(&state.numbers);
  judged_.Save(kGateNumbers, &state.numbers);
  gate_state_.Save(kGateStateNumbers, &state.numbers);
  // A checkpoint's steps are in the metrics and in the record, whatever happens to the machine.
  if (context_.is_first()) SLUICE_RETURN_IF_ERROR(folder_->SyncMetrics());
  if (record_ != nullptr) SLUICE_RETURN_IF_ERROR(record_->Sync());
  if (options_.kl.reference == ReferenceKind::kMixed && reference_ != nullptr) {
    state.reference = reference_->parameters();
  }
  state.score = validation_->ScoreAt(step_);
  return checkpoints_->Save(std::move(state), *policy_, *optimizer_, {source_, balance, std::exchange(ended_, {})},
                            writing);
}

absl::Status RlJob::Finish() {
  SLUICE_ASSIGN_OR_RETURN(const LedgerBalance balance, TotalBalance());
  if (!context_.is_first()) return absl::OkStatus();
  if (!ending_.empty()) context_.monitor->ReportLog(ending_);
  SLUICE_RETURN_IF_ERROR(ExportPolicy(context_, *policy_, *folder_, "final"));
  RunResults results;
  results.kind = "rl";
  results.texts["name"] = context_.options.name;
  // Update 0, to compare with: a resumed job finds it in its metrics.
  SLUICE_ASSIGN_OR_RETURN(const std::vector<MetricsRow> rows, folder_->ReadMetrics());
  if (!rows.empty() && rows.front().step == 0) results.numbers["start"] = rows.front().values;
  results.numbers["best"] = validation_->best().metrics();
  results.numbers["final"] = validation_->latest();
  results.numbers["final"]["step"] = static_cast<double>(step_);
  results.numbers["run"]["seconds"] = seconds();
  results.numbers["ledger"] = {
      {"issued", static_cast<double>(balance.issued)},       {"trained", static_cast<double>(balance.trained)},
      {"dropped", static_cast<double>(balance.dropped)},     {"failed", static_cast<double>(balance.failed)},
      {"cancelled", static_cast<double>(balance.cancelled)}, {"open", static_cast<double>(balance.open)},
      {"frontier", static_cast<double>(balance.frontier)}};
  judged_.Save("", &results.numbers["gate"]);
  for (auto& [cell, values] : judged_.cells.Table()) results.numbers[absl::StrCat("cell/", cell)] = std::move(values);
  const absl::StatusOr<double> admission = MeanOfMetric(*folder_, "gate/open_rate");
  if (admission.ok()) results.numbers["run"]["admission_rate"] = *admission;  // a job of no steps has none
  results.texts["data"] = dataset_->folder();
  results.texts["export"] = folder_->export_folder("best");
  results.texts["ending"] = ending_;
  results.texts["report"] = folder_->report();
  return WriteOutcome(context_, *folder_, results);
}

absl::Status RlJob::Run() {
  SLUICE_CHECK(context_.rollouts != nullptr && context_.reservations != nullptr,
               "an rl job needs rollouts and reservations");
  SLUICE_RETURN_IF_ERROR(Prepare());
  SLUICE_RETURN_IF_ERROR(OpenRollouts());
  const absl::Cleanup close = [this] { context_.rollouts->EndJob(); };
  SLUICE_RETURN_IF_ERROR(PublishNow());
  // Update 0 counts: nothing may be called an improvement that the start was not compared with.
  if (!resumed_) SLUICE_RETURN_IF_ERROR(ValidateNow());

  while (step_ < total_steps()) {
    SLUICE_ASSIGN_OR_RETURN(const StepDecision decision, control_->Agree());
    if (decision.stop == StopRequest::kPreempt) {
      SLUICE_RETURN_IF_ERROR(SaveCheckpoint(JobCheckpoints::Writing::kNow));
      return PreemptedError(absl::StrCat("preempted after the checkpoint of step ", step_, "; run again to resume"));
    }
    if (decision.stop == StopRequest::kCancel) {
      SLUICE_RETURN_IF_ERROR(SaveCheckpoint(JobCheckpoints::Writing::kNow, /*cancelling=*/true));
      source_->CancelOpen();
      return absl::CancelledError(absl::StrCat("cancelled on request after step ", step_));
    }
    if (decision.time_is_up) {
      ending_ = absl::StrFormat("the time limit of %.0f s ended training at step %d of %d",
                                context_.options.time_limit_s, step_, total_steps());
      break;
    }
    // Without all groups the loop goes round: a stop request or the time limit must not wait for actors.
    SLUICE_RETURN_IF_ERROR(IssueAhead());
    SLUICE_ASSIGN_OR_RETURN(const bool ready, AwaitGroups());
    if (!ready) continue;
    const absl::Status status = TrainStep(decision);
    if (ExitCodeFor(status) == ExitCode::kHeld) {
      // The step is committed; what is held is the job.
      SLUICE_RETURN_IF_ERROR(SaveCheckpoint(JobCheckpoints::Writing::kNow));
      return status;
    }
    SLUICE_RETURN_IF_ERROR(status);
    const bool last = step_ == total_steps();
    const int validate_every = options_.validation.every;
    if (last || (validate_every > 0 && step_ % static_cast<uint64_t>(validate_every) == 0)) {
      SLUICE_RETURN_IF_ERROR(ValidateNow());
    }
    const int save_every = context_.options.checkpoint.every;
    if (!last && save_every > 0 && step_ % static_cast<uint64_t>(save_every) == 0) {
      SLUICE_RETURN_IF_ERROR(SaveCheckpoint(JobCheckpoints::Writing::kBehind));
    }
  }
  // Only a time limit leaves steps that were issued and not trained.
  for (uint64_t step = step_; step < issued_steps_; ++step) {
    const OrdinalRange slice = SliceOfStep(step, static_cast<uint64_t>(options_.groups_per_step),
                                           context_.collective->rank(), context_.collective->world_size());
    for (uint64_t i = 0; i < slice.count; ++i) NoteEnd(slice.first + i, TerminalState::kCancelled, "time_limit");
  }
  source_->CancelOpen();
  SLUICE_RETURN_IF_ERROR(SaveCheckpoint(JobCheckpoints::Writing::kNow));
  return Finish();
}

}  // namespace

absl::Status RunRl(const RunContext& context) { return RlJob(context).Run(); }

}  // namespace sluice::learner
