// Sluice's side of the comparison with Hugging Face, through the library calls that actors and learners make:
//
//   compare_driver ROW --work FILE --model FOLDER --threads N
//
// does the row's work once and prints what came of it as one JSON line, then once for every line "run" on standard
// input, with the seconds a call and the peak memory. tests/bench/hf/hf_side.py answers the same; tools/
// bench_compare.py writes the work file and starts both. Rows: docs/benchmarks.md.
#include <sys/resource.h>
#include <torch/types.h>
#include <torch/utils.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <fstream>
#include <functional>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "common/catalog/dataset.h"
#include "common/catalog/trie.h"
#include "common/catalog/vocabulary.h"
#include "common/collective/collective.h"
#include "common/decode/decode.h"
#include "common/file/file.h"
#include "common/model/policy.h"
#include "common/model/tree_layout.h"
#include "common/status/status.h"
#include "common/tensor/keep_memory.h"
#include "common/time/clock.h"
#include "learner/run/evaluate_policy.h"
#include "learner/train/adamw.h"
#include "learner/train/rl_step.h"
#include "learner/train/sft_step.h"

namespace sluice::learner {
namespace {

using nlohmann::json;

constexpr double kLearningRate = 1e-5;
// A sample is the mean of as many calls as take this long.
constexpr double kSampleSeconds = 0.2;

struct Arguments {
  std::string row;
  std::string work;
  std::string model;
  int threads = 1;
};

// The work file and what both rows of decoding and of training need of it.
struct Work {
  json fields;
  SidVocabulary vocabulary;
  std::shared_ptr<const Trie> trie;
  std::unique_ptr<Policy> policy;

  std::vector<int32_t> Items(const json& items) const { return items.get<std::vector<int32_t>>(); }
  int32_t LeafOf(const json& item) const { return trie->LeafOfItem(item.get<int32_t>()); }
};

absl::StatusOr<Work> ReadWork(const Arguments& arguments) {
  Work work;
  SLUICE_ASSIGN_OR_RETURN(const std::string text, ReadFile(arguments.work));
  work.fields = json::parse(text);
  work.vocabulary = {work.fields.at("levels").get<int>(), work.fields.at("codes").get<int>()};
  std::vector<int32_t> tokens;
  for (const json& sid : work.fields.at("sids")) {
    for (int level = 0; level < work.vocabulary.levels; ++level) {
      tokens.push_back(work.vocabulary.Token(level, sid.at(static_cast<size_t>(level)).get<int32_t>()));
    }
  }
  SLUICE_ASSIGN_OR_RETURN(Trie trie, Trie::Build(work.vocabulary.levels, tokens));
  work.trie = std::make_shared<const Trie>(std::move(trie));
  SLUICE_ASSIGN_OR_RETURN(work.policy, Policy::Load(arguments.model, work.trie));
  return work;
}

// One row: `first` does the work and says what came of it, `again` only does it.
class Row {
 public:
  virtual ~Row() = default;
  virtual absl::StatusOr<json> First() = 0;
  virtual absl::Status Again() = 0;
};

class DecodingRow : public Row {
 public:
  static absl::StatusOr<std::unique_ptr<Row>> Make(Work work, bool samples) {
    auto row = std::make_unique<DecodingRow>(std::move(work), samples);
    for (const json& items : row->work_.fields.at("prompts")) {
      DecodePrompt prompt;
      SLUICE_ASSIGN_OR_RETURN(prompt.input, row->work_.policy->EncodePrompt(row->work_.Items(items)));
      prompt.seed = row->prompts_.size() + 1;
      row->prompts_.push_back(std::move(prompt));
    }
    return row;
  }
  DecodingRow(Work work, bool samples) : work_(std::move(work)), samples_(samples) {
    const int candidates = work_.fields.at("candidates").get<int>();
    (samples ? plan_.samples : plan_.beams) = candidates;
  }

  absl::StatusOr<json> First() override {
    SLUICE_ASSIGN_OR_RETURN(const std::vector<DecodeResult> results,
                            Decode(*work_.policy, *work_.trie, prompts_, plan_));
    json beams = json::array(), scores = json::array();
    double valid = 0, all = 0;
    for (const DecodeResult& result : results) {
      json of_prompt = json::array(), scores_of_prompt = json::array();
      for (const Completion& completion : samples_ ? result.samples : result.beams) {
        double score = 0;
        for (const float log_prob : completion.log_probs_full) score += log_prob;
        of_prompt.push_back(completion.tokens);
        scores_of_prompt.push_back(score);
        valid += work_.trie->FindLeaf(completion.tokens) != Trie::kNone;
        ++all;
      }
      beams.push_back(std::move(of_prompt));
      scores.push_back(std::move(scores_of_prompt));
    }
    json result = {{"valid", all > 0 ? valid / all : 0}};
    if (!samples_) result.update({{"beams", std::move(beams)}, {"scores", std::move(scores)}});
    return result;
  }
  absl::Status Again() override { return Decode(*work_.policy, *work_.trie, prompts_, plan_).status(); }

 private:
  Work work_;
  const bool samples_;
  DecodePlan plan_;
  std::vector<DecodePrompt> prompts_;
};

// Evaluation as a job does it, on a data set of the work file's users: their history, then the event to predict.
class EvaluationRow : public Row {
 public:
  static absl::StatusOr<std::unique_ptr<Row>> Make(Work work) {
    Dataset::Contents contents;
    contents.name = "comparison";
    contents.levels = work.vocabulary.levels;
    contents.codes = work.vocabulary.codes;
    contents.max_history = work.fields.at("history").get<int>();
    for (const json& sid : work.fields.at("sids")) {
      contents.item_names.push_back(absl::StrCat(contents.item_names.size()));
      for (const json& code : sid) contents.item_codes.push_back(code.get<int32_t>());
    }
    contents.first_event.push_back(0);
    for (const json& user : work.fields.at("eval")) {
      contents.user_names.push_back(absl::StrCat(contents.user_names.size()));
      for (const json& item : user.at("history")) {
        contents.event_item.push_back(item.get<int32_t>());
        contents.event_split.push_back(SplitLabel::kTrain);
      }
      contents.event_item.push_back(user.at("target").get<int32_t>());
      contents.event_split.push_back(SplitLabel::kTest);
      contents.first_event.push_back(static_cast<int64_t>(contents.event_item.size()));
    }
    auto row = std::make_unique<EvaluationRow>(std::move(work));
    SLUICE_ASSIGN_OR_RETURN(row->dataset_, Dataset::FromContents(std::move(contents)));
    return row;
  }
  explicit EvaluationRow(Work work) : work_(std::move(work)), collective_(MakeSingleCollective()) {}

  absl::StatusOr<json> First() override {
    SLUICE_RETURN_IF_ERROR(Again());
    json ranks = json::array(), first_ten = json::array();
    for (const PromptOutcome& outcome : outcomes_) {
      ranks.push_back(outcome.sid_rank);
      json tokens = json::array();
      for (const int32_t leaf : outcome.top_leaves) {
        const absl::Span<const int32_t> of_leaf = work_.trie->TokensOfLeaf(leaf);
        tokens.push_back(std::vector<int32_t>(of_leaf.begin(), of_leaf.end()));
      }
      first_ten.push_back(std::move(tokens));
    }
    return json{{"ranks", std::move(ranks)}, {"beams", std::move(first_ten)}};
  }
  absl::Status Again() override {
    EvaluationSettings settings;
    settings.beams = work_.fields.at("eval_beams").get<int>();
    settings.now = MonotonicClock();
    settings.exclude_history = false;  // as transformers, which knows no such rule
    return EvaluatePolicy(*work_.policy, *dataset_, dataset_->Examples(SplitLabel::kTest), settings, *collective_,
                          &outcomes_, [](const EvaluationProgress&) { return absl::OkStatus(); })
        .status();
  }

 private:
  Work work_;
  std::shared_ptr<const Dataset> dataset_;
  std::unique_ptr<Collective> collective_;
  std::vector<PromptOutcome> outcomes_;
};

OptimizerOptions TorchDefaults() {
  OptimizerOptions options;
  options.weight_decay = 0.01;
  options.beta1 = 0.9;
  options.beta2 = 0.999;
  options.clip_norm = 1;
  return options;
}

// Floating-point operations of forward and backward pass over `rows` rows whose attention sees `pairs` pairs: a product
// of [m, k] and [k, n] is 2 m k n, and its two gradients as much again each. `needed` rows, which see `needed_pairs`,
// get logits, and in the last layer the other rows have keys and values alone, beside their part of the fused
// projection.
double TrainingFlops(const PolicyConfig& config, double rows, double pairs, double needed, double needed_pairs) {
  const double width = static_cast<double>(config.hidden_size);
  const double queries = static_cast<double>(config.num_heads * config.head_dim);
  const double keys = static_cast<double>(config.num_kv_heads * config.head_dim);
  const double inner = static_cast<double>(config.intermediate_size);
  const double before = 2 * width * (queries + 2 * keys), after = 2 * width * (queries + 3 * inner);
  const double whole = static_cast<double>(config.num_layers - 1);
  const double layers = whole * (rows * (before + after) + 4 * pairs * queries) + rows * before + needed * after +
                        4 * needed_pairs * queries;
  return 3 * (layers + 2 * needed * width * static_cast<double>(config.vocab_size));
}

// torch's own products of the shapes of an update: what its sgemm makes of them, without anything in between.
class ShapesRow : public Row {
 public:
  ShapesRow(const PolicyConfig& config, int64_t rows, int64_t predictions) : layers_(config.num_layers) {
    const int64_t queries = config.num_heads * config.head_dim;
    const int64_t keys = config.num_kv_heads * config.head_dim;
    of_layer_ = {Product(rows, config.hidden_size, queries + 2 * keys), Product(rows, queries, config.hidden_size),
                 Product(rows, config.hidden_size, 2 * config.intermediate_size),
                 Product(rows, config.intermediate_size, config.hidden_size)};
    head_ = Product(predictions, config.hidden_size, config.vocab_size);
  }
  absl::StatusOr<json> First() override {
    SLUICE_RETURN_IF_ERROR(Again());
    double flops = head_.flops();
    for (const Product& product : of_layer_) flops += static_cast<double>(layers_) * product.flops();
    return json{{"flops", flops}};
  }
  absl::Status Again() override {
    const torch::NoGradGuard no_grad;
    for (int64_t layer = 0; layer < layers_; ++layer) {
      for (Product& product : of_layer_) product.Run();
    }
    head_.Run();
    return absl::OkStatus();
  }

 private:
  // y = x W^T and both of its gradients.
  struct Product {
    Product() = default;
    Product(int64_t rows, int64_t in, int64_t out)
        : x(torch::rand({rows, in})),
          weight(torch::rand({out, in})),
          y(torch::rand({rows, out})),
          x_gradient(torch::empty({rows, in})),
          weight_gradient(torch::empty({out, in})) {}
    void Run() {
      torch::mm_out(y, x, weight.t());
      torch::mm_out(x_gradient, y, weight);
      torch::mm_out(weight_gradient, y.t(), x);
    }
    double flops() const {
      return 6.0 * static_cast<double>(x.size(0)) * static_cast<double>(x.size(1)) * static_cast<double>(y.size(1));
    }
    at::Tensor x, weight, y, x_gradient, weight_gradient;
  };
  const int64_t layers_;
  std::vector<Product> of_layer_;
  Product head_;
};

// As the learner chooses them.
std::unique_ptr<StepLanes> LanesOf(Policy& policy) {
  return StepLanes::Create(&policy, nullptr, LanesFor(policy, torch::get_num_threads())).value();
}

class UpdateRow : public Row {
 public:
  static absl::StatusOr<std::unique_ptr<UpdateRow>> Make(Work work) {
    auto row = std::make_unique<UpdateRow>(std::move(work));
    SLUICE_RETURN_IF_ERROR(row->FillGroups());
    return row;
  }
  explicit UpdateRow(Work work)
      : work_(std::move(work)),
        lanes_(LanesOf(*work_.policy)),
        collective_(MakeSingleCollective()),
        optimizer_(work_.policy->parameters(), work_.policy->gradients(), work_.policy->decay_mask(), TorchDefaults()) {
  }

  absl::StatusOr<json> First() override {
    // transformers' step has no NLL term, so the gradients are compared without it, at a rate that changes nothing.
    for (RlGroup& group : groups_) group.plan.nll_token_weight = 0;
    SLUICE_ASSIGN_OR_RETURN(const RlStepResult bare, Step(0));
    for (RlGroup& group : groups_) group.plan.nll_token_weight = 1.0 / work_.trie->levels();
    SLUICE_ASSIGN_OR_RETURN(const RlStepResult whole, Step(0));
    return json{{"grpo_loss", whole.grpo_loss},
                {"nll", whole.nll},
                {"gradient_norm", bare.gradient_norm},
                {"flops", flops_},
                {"rows", whole.rows}};
  }
  absl::Status Again() override { return Step(kLearningRate).status(); }

  std::unique_ptr<Row> MakeShapesRow() const {
    return std::make_unique<ShapesRow>(work_.policy->config(), rows_, predictions_);
  }

 private:
  absl::StatusOr<RlStepResult> Step(double learning_rate) {
    RlStepSettings settings;
    settings.grpo_space = LogProbSpace::kFull;  // as TRL
    settings.nll_space = LogProbSpace::kFull;
    settings.nll_groups = static_cast<double>(groups_.size());
    settings.grpo_groups = static_cast<double>(groups_.size());
    settings.learning_rate = learning_rate;
    return RlStep(*lanes_, *work_.trie, optimizer_, *collective_, groups_, settings);
  }

  absl::Status FillGroups() {
    const json& prompts = work_.fields.at("prompts");
    const int levels = work_.trie->levels();
    scored_.resize(prompts.size());
    TreeBatch batch;
    for (size_t g = 0; g < prompts.size(); ++g) {
      RlGroup group;
      SLUICE_ASSIGN_OR_RETURN(group.input, work_.policy->EncodePrompt(work_.Items(prompts[g])));
      group.target_leaf = work_.LeafOf(work_.fields.at("targets")[g]);
      const int32_t anchor = static_cast<int32_t>(group.input.size()) - 1;
      AddBranch(g, anchor, group.target_leaf, &batch);
      const json& completions = work_.fields.at("completions")[g];
      for (size_t i = 0; i < completions.size(); ++i) {
        Completion completion;
        completion.leaf = work_.LeafOf(completions[i]);
        const absl::Span<const int32_t> tokens = work_.trie->TokensOfLeaf(completion.leaf);
        completion.tokens.assign(tokens.begin(), tokens.end());
        scored_[g].completions.push_back(std::move(completion));
        CompletionPlan plan;
        plan.source = static_cast<int>(i);
        plan.advantage = work_.fields.at("advantages")[g][i].get<double>();
        plan.token_weight = plan.advantage / static_cast<double>(completions.size()) / levels;
        group.plan.completions.push_back(plan);
        AddBranch(g, anchor, scored_[g].completions.back().leaf, &batch);
      }
      group.group = &scored_[g];
      batch.prompts.push_back(group.input);
      groups_.push_back(std::move(group));
    }
    const PolicyConfig& config = work_.policy->config();
    SLUICE_ASSIGN_OR_RETURN(const TreeLayout layout, MakeTreeLayout(batch.prompts, batch.branches,
                                                                    {config.vocab_size, 0, config.max_positions}));
    rows_ = layout.rows;
    predictions_ = static_cast<int64_t>(layout.prediction_rows.size());
    // Every branch hangs on the end of its prompt, so the ends and the branches' own rows are what predicts.
    double needed = static_cast<double>(rows_), needed_pairs = static_cast<double>(layout.visible_pairs);
    for (const int64_t length : layout.trunk_length) {
      needed -= static_cast<double>(length - 1);
      needed_pairs -= static_cast<double>(length * (length - 1) / 2);
    }
    flops_ = TrainingFlops(config, static_cast<double>(rows_), static_cast<double>(layout.visible_pairs), needed,
                           needed_pairs);
    return absl::OkStatus();
  }

  void AddBranch(size_t prompt, int32_t anchor, int32_t leaf, TreeBatch* batch) const {
    const absl::Span<const int32_t> tokens = work_.trie->TokensOfLeaf(leaf);
    batch->branches.push_back({static_cast<int32_t>(prompt), anchor, {tokens.begin(), tokens.end()}});
  }

  Work work_;
  std::unique_ptr<StepLanes> lanes_;
  std::unique_ptr<Collective> collective_;
  AdamW optimizer_;
  std::vector<ScoredGroup> scored_;
  std::vector<RlGroup> groups_;
  int64_t rows_ = 0;
  int64_t predictions_ = 0;
  double flops_ = 0;
};

class SupervisedRow : public Row {
 public:
  static absl::StatusOr<std::unique_ptr<Row>> Make(Work work) {
    return std::make_unique<SupervisedRow>(std::move(work));
  }
  explicit SupervisedRow(Work work)
      : work_(std::move(work)),
        lanes_(LanesOf(*work_.policy)),
        collective_(MakeSingleCollective()),
        optimizer_(work_.policy->parameters(), work_.policy->gradients(), work_.policy->decay_mask(), TorchDefaults()) {
    for (const json& sequence : work_.fields.at("sequences")) {
      SftWindow window;
      window.items = work_.Items(sequence);
      window.last_target = window.items.back();
      window.items.pop_back();
      plan_.targets += window.targets();
      plan_.windows.push_back(std::move(window));
    }
  }

  absl::StatusOr<json> First() override {
    SLUICE_ASSIGN_OR_RETURN(const SftStepResult result, Step(0));
    return json{{"loss", result.loss}, {"gradient_norm", result.gradient_norm}};
  }
  absl::Status Again() override { return Step(kLearningRate).status(); }

 private:
  absl::StatusOr<SftStepResult> Step(double learning_rate) {
    return SftStep(*lanes_, *work_.trie, optimizer_, *collective_, plan_, {.learning_rate = learning_rate});
  }

  Work work_;
  std::unique_ptr<StepLanes> lanes_;
  std::unique_ptr<Collective> collective_;
  AdamW optimizer_;
  SftStepPlan plan_;
};

// torch's own product of two [1024, 1024] matrices, the yardstick of kernel efficiency; ten in one run.
class SgemmRow : public Row {
 public:
  SgemmRow() : a_(torch::rand({kSide, kSide})), b_(torch::rand({kSide, kSide})), c_(torch::empty({kSide, kSide})) {}
  absl::StatusOr<json> First() override {
    SLUICE_RETURN_IF_ERROR(Again());
    return json{{"flops", 2.0 * kRepeats * kSide * kSide * kSide}};
  }
  absl::Status Again() override {
    const torch::NoGradGuard no_grad;
    for (int i = 0; i < kRepeats; ++i) torch::mm_out(c_, a_, b_);
    return absl::OkStatus();
  }

 private:
  static constexpr int64_t kSide = 1024;
  static constexpr int kRepeats = 10;
  at::Tensor a_, b_, c_;
};

absl::StatusOr<std::unique_ptr<Row>> MakeRow(const Arguments& arguments) {
  if (arguments.row == "sgemm") return std::make_unique<SgemmRow>();
  SLUICE_ASSIGN_OR_RETURN(Work work, ReadWork(arguments));
  if (arguments.row == "beams") return DecodingRow::Make(std::move(work), /*samples=*/false);
  if (arguments.row == "samples") return DecodingRow::Make(std::move(work), /*samples=*/true);
  if (arguments.row == "eval") return EvaluationRow::Make(std::move(work));
  if (arguments.row == "update") return UpdateRow::Make(std::move(work));
  if (arguments.row == "shapes") {
    SLUICE_ASSIGN_OR_RETURN(const std::unique_ptr<UpdateRow> update, UpdateRow::Make(std::move(work)));
    return update->MakeShapesRow();
  }
  if (arguments.row == "sft") return SupervisedRow::Make(std::move(work));
  return absl::InvalidArgumentError(
      absl::StrCat("there is no row '", arguments.row, "'; want beams, samples, eval, update, sft, sgemm or shapes"));
}

absl::StatusOr<Arguments> ParseArguments(int argc, char** argv) {
  Arguments arguments;
  if (argc < 2) return absl::InvalidArgumentError("want compare_driver ROW --work FILE --model FOLDER --threads N");
  arguments.row = argv[1];
  for (int i = 2; i < argc; i += 2) {
    const std::string name = argv[i];
    const std::string value = i + 1 < argc ? argv[i + 1] : "";
    if (name == "--work") {
      arguments.work = value;
    } else if (name == "--model") {
      arguments.model = value;
    } else if (name != "--threads" || !absl::SimpleAtoi(value, &arguments.threads) || arguments.threads < 1) {
      return absl::InvalidArgumentError(absl::StrCat("cannot read the option ", name, " '", value, "'"));
    }
  }
  return arguments;
}

double CpuSeconds() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  const auto seconds = [](const timeval& t) {
    return static_cast<double>(t.tv_sec) + 1e-6 * static_cast<double>(t.tv_usec);
  };
  return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

double PeakMib() {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (absl::StartsWith(line, "VmHWM:")) return std::stod(line.substr(6)) / 1024;
  }
  return 0;
}

absl::Status Serve(const Arguments& arguments) {
  torch::set_num_threads(arguments.threads);
  KeepFreedMemory();  // as the learner does
  SLUICE_ASSIGN_OR_RETURN(const std::unique_ptr<Row> row, MakeRow(arguments));
  SLUICE_ASSIGN_OR_RETURN(json result, row->First());
  std::cout << json{{"ready", true}, {"result", std::move(result)}} << std::endl;
  for (std::string line; std::getline(std::cin, line);) {
    if (line != "run") return absl::InvalidArgumentError(absl::StrCat("want the line 'run', got '", line, "'"));
    const double cpu = CpuSeconds();
    const auto started = std::chrono::steady_clock::now();
    double wall = 0;
    int calls = 0;
    while (wall < kSampleSeconds) {
      SLUICE_RETURN_IF_ERROR(row->Again());
      wall = std::chrono::duration<double>(std::chrono::steady_clock::now() - started).count();
      ++calls;
    }
    const double used = CpuSeconds() - cpu;
    std::cout << json{{"wall", wall / calls}, {"cpu", used / calls}, {"calls", calls}, {"peak_mib", PeakMib()}}
              << std::endl;
  }
  return absl::OkStatus();
}

}  // namespace
}  // namespace sluice::learner

int main(int argc, char** argv) {
  const absl::StatusOr<sluice::learner::Arguments> arguments = sluice::learner::ParseArguments(argc, argv);
  const absl::Status status = arguments.ok() ? sluice::learner::Serve(*arguments) : arguments.status();
  if (status.ok()) return 0;
  std::cerr << "compare_driver: " << status.message() << "\n";
  return 1;
}
