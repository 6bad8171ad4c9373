#include "common/job_plan/job_plan.h"

#include <algorithm>
#include <cmath>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/catalog/dataset.h"
#include "common/file/file.h"
#include "common/model_config/model_folder.h"
#include "common/model_config/policy_config.h"
#include "common/plan/plan.h"
#include "common/status/status.h"

namespace sluice {
namespace {

using Json = nlohmann::ordered_json;

constexpr int64_t kMaxConfigBytes = int64_t{16} << 20;

// What the processes take that do the same work on next to no model: libraries, threads, gRPC, generated kernels, a
// small data set (docs/scale.md says how that was measured).
constexpr double kLearnerBase = 192e6;
constexpr double kActorBase = 168e6;

// As the learner makes a new model (learner/run): about 8/3 of the width in whole multiples of 32.
int64_t DefaultIntermediate(int64_t hidden) { return (hidden * 8 / 3 + 31) / 32 * 32; }

PolicyShape NewShape(const v1::ModelSpec& model, const Dataset& data) {
  PolicyShape shape;
  shape.vocab = data.vocabulary().size();
  shape.hidden = model.hidden_size();
  shape.intermediate =
      model.intermediate_size() > 0 ? model.intermediate_size() : DefaultIntermediate(model.hidden_size());
  shape.layers = model.layers();
  shape.heads = model.heads();
  shape.kv_heads = model.kv_heads();
  shape.head_dim = model.head_dim() > 0 ? model.head_dim() : model.hidden_size() / std::max(1, model.heads());
  shape.tied = model.tie_embeddings();
  shape.qkv_bias = model.architecture() == v1::ARCHITECTURE_QWEN2;
  shape.head_norms = model.architecture() == v1::ARCHITECTURE_QWEN3;
  shape.merged = model.encoder() == v1::PROMPT_ENCODER_MERGED;
  if (shape.merged && model.item_embedding()) shape.item_rows = data.trie().num_leaves();
  return shape;
}

// A value head that the job adds, as the learner does.
void AddValueHead(const v1::ModelSpec& model, PolicyShape* shape) {
  if (!model.value_head() || shape->value_hidden > 0) return;
  shape->value_hidden = model.value_hidden_size() > 0 ? model.value_hidden_size() : shape->hidden;
}

absl::StatusOr<PolicyShape> ReadShape(const std::string& path) {
  SLUICE_ASSIGN_OR_RETURN(const std::string folder, ResolveModelFolder(path));
  SLUICE_ASSIGN_OR_RETURN(const std::string text, ReadFile(JoinPath(folder, "config.json"), kMaxConfigBytes));
  SLUICE_ASSIGN_OR_RETURN(const PolicyConfig config, PolicyConfig::FromJson(text));
  return PolicyShape::Of(config);
}

Json MemoryJson(const MemoryEstimate& estimate, double base) {
  Json parts = Json::array();
  for (const MemoryPart& part : estimate.parts) {
    if (part.bytes > 0) parts.push_back({{"name", part.name}, {"bytes", std::round(part.bytes)}, {"how", part.how}});
  }
  return {{"parts", parts}, {"total_bytes", std::round(estimate.total())}, {"base_bytes", base}};
}

class Planner {
 public:
  Planner(const v1::JobSpec& spec, int ranks, int threads)
      : spec_(spec), ranks_(std::max(1, ranks)), threads_(std::max(1, threads)) {
    plan_["ranks"] = ranks_;
    plan_["threads"] = threads_;
    plan_["counts"] = Json::object();
    plan_["unknown"] = Json::array();
  }

  Json Make() {
    if (spec_.kind() == v1::JOB_KIND_PREPARE) {
      Unknown("what a prepare job makes depends on its events");
      return std::move(plan_);
    }
    ReadData();
    ReadModel();
    if (spec_.kind() == v1::JOB_KIND_SFT) PlanSft();
    if (spec_.kind() == v1::JOB_KIND_RL) PlanRl();
    if (spec_.kind() == v1::JOB_KIND_EVALUATE) PlanEvaluate();
    return std::move(plan_);
  }

 private:
  void Unknown(const std::string& what) { plan_["unknown"].push_back(what); }
  void Count(const char* name, double value) { plan_["counts"][name] = std::round(value); }

  void ReadData() {
    absl::StatusOr<std::shared_ptr<const Dataset>> data = Dataset::Load(spec_.data());
    if (!data.ok()) {
      return Unknown(absl::StrCat("sizes of the data set, which this machine cannot read: ",
                                  std::string(data.status().message())));
    }
    data_ = *std::move(data);
    const bool reserved = spec_.kind() == v1::JOB_KIND_RL && spec_.rl().prompt_split() == v1::PROMPT_SPLIT_RESERVED;
    examples_ = data_->Examples(reserved ? SplitLabel::kReserved : SplitLabel::kTrain);
    double items = 0;
    for (const Example& example : examples_) items += static_cast<double>(data_->History(example).size());
    mean_history_ = examples_.empty() ? 0 : items / static_cast<double>(examples_.size());
  }

  void ReadModel() {
    absl::StatusOr<PolicyShape> shape = absl::NotFoundError("a new model's vocabulary is the data set's");
    if (!spec_.model().path().empty()) {
      shape = ReadShape(spec_.model().path());
    } else if (data_ != nullptr) {
      shape = NewShape(spec_.model(), *data_);
    }
    if (!shape.ok()) return Unknown(absl::StrCat("sizes of the model: ", std::string(shape.status().message())));
    shape_ = *shape;
    AddValueHead(spec_.model(), &*shape_);
    Count("parameters", static_cast<double>(ArenaElements(*shape_)));
  }

  // Positions of a prompt with so many items in its history, the begin token included.
  double Positions(double items) const { return 1 + items * (shape_ && !shape_->merged ? data_->trie().levels() : 1); }

  int Lanes() const { return TrainingLanes(ArenaElements(*shape_) * static_cast<int64_t>(sizeof(float)), threads_); }

  void PlanSft() {
    const v1::SftSpec& sft = spec_.sft();
    Count("passes", sft.passes());
    if (data_ == nullptr) return;
    const double targets = static_cast<double>(examples_.size());
    const double step = std::min<double>(sft.targets_per_step(), targets);
    Count("targets_a_pass", targets);
    Count("steps_at_most", sft.passes() * std::ceil(targets / std::max(1.0, step)));
    Count("tokens_a_step", step * data_->trie().levels());
    if (!shape_) return;
    TrainingBatch batch;
    batch.levels = data_->trie().levels();
    batch.groups = step / ranks_;
    // Windows: each item is a position of the trunk, and a target of its own.
    batch.prompt_positions = shape_->merged ? 1 : batch.levels;
    batch.branches = shape_->merged ? 1 : 0;
    batch.dropout = sft.dropout() > 0;
    batch.kept_versions = 0;
    batch.lanes = Lanes();
    plan_["learner_rank"] = MemoryJson(LearnerMemory(*shape_, batch), kLearnerBase);
  }

  void PlanRl() {
    const v1::RlSpec& rl = spec_.rl();
    const double groups = rl.groups_per_step();
    const double completions = rl.group_size();
    Count("steps", rl.steps());
    Count("prompts_a_step", groups);
    Count("prompts", groups * rl.steps());
    Count("completions_a_step", groups * completions);
    Count("groups_open_at_most", groups * (rl.staleness() + 1));
    Count("leases_a_step", std::ceil(groups / rl.lease_groups()));
    const double ways = ranks_ * static_cast<double>(rl.lease_groups());
    if (std::fmod(groups, ways) != 0) {
      Unknown(absl::StrCat("whether it runs on ", ranks_, " ranks: groups_per_step ", rl.groups_per_step(),
                           " is no multiple of ranks times lease_groups ", rl.lease_groups()));
    }
    if (data_ == nullptr) return;
    const int levels = data_->trie().levels();
    Count("training_examples", static_cast<double>(examples_.size()));
    Count("tokens_sampled_a_step", groups * completions * levels);
    if (!shape_) return;
    TrainingBatch batch;
    batch.levels = levels;
    batch.groups = groups / ranks_;
    batch.prompt_positions = Positions(mean_history_);
    // Every gate open: the target and all completions; a closed gate leaves the target alone.
    batch.branches = rl.objective() == v1::OBJECTIVE_NLL_ONLY ? 1 : completions + 1;
    batch.dropout = rl.dropout() > 0;
    batch.lanes = Lanes();
    Count("positions_trained_a_step_at_most", batch.rows() * ranks_);
    plan_["learner_rank"] = MemoryJson(LearnerMemory(*shape_, batch), kLearnerBase);
    SamplingBatch lease;
    lease.prompts = rl.lease_groups();
    lease.prompt_positions = Positions(data_->max_history());
    lease.completions = completions;
    lease.levels = levels;
    plan_["actor"] = MemoryJson(ActorMemory(*shape_, lease), kActorBase);
  }

  void PlanEvaluate() {
    const v1::EvaluateSpec& evaluate = spec_.evaluate();
    Count("beams", evaluate.beams());
    if (data_ == nullptr) return;
    const bool test = evaluate.split() == v1::EvaluateSpec::SPLIT_TEST;
    const double all = static_cast<double>(data_->Examples(test ? SplitLabel::kTest : SplitLabel::kValidation).size());
    Count("users", evaluate.users() > 0 ? std::min<double>(evaluate.users(), all) : all);
  }

  const v1::JobSpec& spec_;
  const int ranks_;
  const int threads_;
  Json plan_;
  std::shared_ptr<const Dataset> data_;  // null: not readable here
  std::vector<Example> examples_;
  double mean_history_ = 0;
  std::optional<PolicyShape> shape_;
};

std::string WithSpaces(std::string name) {
  std::replace(name.begin(), name.end(), '_', ' ');
  return name;
}

}  // namespace

Json PlanJob(const v1::JobSpec& effective, int ranks, int threads) { return Planner(effective, ranks, threads).Make(); }

std::string PlanText(const Json& plan) {
  const int ranks = plan.at("ranks").get<int>(), threads = plan.at("threads").get<int>();
  std::string text = absl::StrFormat("# Plan on %d learner rank%s of %d thread%s:\n", ranks, ranks == 1 ? "" : "s",
                                     threads, threads == 1 ? "" : "s");
  for (const auto& [name, value] : plan.at("counts").items()) {
    absl::StrAppendFormat(&text, "#   %-34s %.0f\n", WithSpaces(name), value.get<double>());
  }
  for (const char* who : {"learner_rank", "actor"}) {
    const auto memory = plan.find(who);
    if (memory == plan.end()) continue;
    absl::StrAppendFormat(&text, "# Memory of %s %s, beside about %s that it takes without a model:\n",
                          std::string(who) == "actor" ? "an" : "a", WithSpaces(who),
                          BytesText(memory->at("base_bytes").get<double>()));
    for (const Json& part : memory->at("parts")) {
      absl::StrAppendFormat(&text, "#   %-34s %-9s %s\n", part.at("name").get<std::string>(),
                            BytesText(part.at("bytes").get<double>()), part.at("how").get<std::string>());
    }
    absl::StrAppendFormat(&text, "#   %-34s %s\n", "together", BytesText(memory->at("total_bytes").get<double>()));
  }
  for (const Json& line : plan.at("unknown")) absl::StrAppend(&text, "# Not known: ", line.get<std::string>(), "\n");
  return text;
}

}  // namespace sluice
