#include <memory>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/catalog/dataset.h"
#include "common/catalog/npy.h"
#include "common/catalog/prepare.h"
#include "common/catalog/readers.h"
#include "common/catalog/semantic_ids.h"
#include "common/market/exposure_bias.h"
#include "common/market/market.h"
#include "common/model_config/model_folder.h"
#include "common/model_config/policy_config.h"
#include "common/random/random.h"
#include "common/ranker/dataset_ranking.h"
#include "common/ranker/sequential_ranker.h"
#include "common/ranker/sequential_training.h"
#include "common/status/exit_code.h"
#include "common/status/status.h"
#include "learner/run/evaluate_policy.h"
#include "learner/run/job_common.h"
#include "learner/run/jobs.h"
#include "learner/run/prompt_order.h"
#include "learner/run/results.h"

namespace sluice::learner {
namespace {

// Which spec made the folder: a second run of the same spec finds its work done.
constexpr char kSpecFile[] = "prepare_spec.sha256";
constexpr char kRankerFolder[] = "sequential_ranker";
constexpr char kUnbiasedRankerFolder[] = "sequential_ranker_unbiased";  // beside one whose log has injected bias
// Labels of the seeds derived here beside those of SeedLabel; a new stream takes a new number.
constexpr uint64_t kMarketStream = 0x6d61726b;  // "mark"
constexpr uint64_t kBiasStream = 0x62696173;    // "bias"
// Validation users that the rankers are measured on: enough for two digits.
constexpr int kRankerUsers = 2000;

class PrepareJob {
 public:
  explicit PrepareJob(const RunContext& context) : context_(context), options_(context.options.prepare) {}

  absl::Status Run();

 private:
  std::string output() const {
    return options_.output.empty() ? JoinPath(context_.run_folder, "data") : options_.output;
  }
  // OK with true: the folder is this spec's earlier result. AlreadyExists: it is something else.
  absl::StatusOr<bool> AlreadyDone() const;
  absl::StatusOr<PreparedEvents> ReadAndFilter();
  absl::Status AssignSids(int64_t log_items, PreparedEvents* prepared);
  // Puts the tokens of semantic IDs where the language model of prepare.sids.model has them.
  absl::Status PlaceTokens(Dataset::Contents* contents) const;
  absl::StatusOr<PreparedEvents> GenerateEvents();
  // The sequential ranker, or the two of them where one's log has injected bias.
  absl::Status TrainRankers(const Dataset& dataset, const std::string& staging);
  // `which` names its numbers: "ranker".
  absl::Status TrainRanker(const Dataset& dataset, const std::vector<std::vector<int32_t>>& sequences,
                           const std::string& which, const std::string& folder);
  absl::Status Stopped() const;

  const RunContext& context_;
  const PrepareOptions& options_;
  int64_t log_items_ = 0;
  Matrix item_vectors_;  // that the semantic IDs were made from; empty if an index gave them
  RunResults results_;
};

absl::StatusOr<bool> PrepareJob::AlreadyDone() const {
  if (!PathExists(output())) return false;
  const absl::StatusOr<std::string> digest = ReadFile(JoinPath(output(), kSpecFile), 256);
  if (digest.ok() && *digest == context_.spec_digest) return true;
  return absl::AlreadyExistsError(absl::StrCat("'", output(),
                                               "' exists and was not made by this spec; remove it or "
                                               "give another prepare.output"));
}

absl::StatusOr<PreparedEvents> PrepareJob::ReadAndFilter() {
  context_.monitor->SetPhase("reading events");
  ReadEventsOptions reading;
  SLUICE_ASSIGN_OR_RETURN(reading.format, ParseEventFormat(options_.format));
  reading.user_column = options_.user_column;
  reading.item_column = options_.item_column;
  reading.rating_column = options_.rating_column;
  reading.timestamp_column = options_.timestamp_column;
  SLUICE_ASSIGN_OR_RETURN(const EventLog log, ReadEvents(options_.events, reading));
  log_items_ = static_cast<int64_t>(log.item_names.size());

  PrepareEventsOptions filter;
  filter.min_rating = options_.min_rating;
  filter.min_user_events = options_.min_user_events;
  filter.min_item_events = options_.min_item_events;
  filter.leave_one_out = options_.leave_one_out;
  filter.rl_events = options_.rl_events;
  filter.validation_fraction = options_.validation_fraction;
  filter.test_fraction = options_.test_fraction;
  filter.max_history = options_.max_history;
  SLUICE_ASSIGN_OR_RETURN(PreparedEvents prepared, PrepareEvents(log, filter, context_.options.name));
  const Dataset::Contents& contents = prepared.contents;
  context_.monitor->ReportLog(absl::StrFormat(
      "%d events read; kept %d events of %d users and %d items (%d left out by rating, %d by the k-core)",
      prepared.log_events, contents.event_item.size(), contents.user_names.size(), contents.item_names.size(),
      prepared.low_rating_events, prepared.core_events));
  results_.numbers["data"] = {{"users", static_cast<double>(contents.user_names.size())},
                              {"items", static_cast<double>(contents.item_names.size())},
                              {"events", static_cast<double>(contents.event_item.size())},
                              {"events_read", static_cast<double>(prepared.log_events)},
                              {"tied_events", static_cast<double>(prepared.tied_events)}};
  return prepared;
}

absl::StatusOr<PreparedEvents> PrepareJob::GenerateEvents() {
  context_.monitor->SetPhase("generating the market");
  PreparedEvents prepared;
  SLUICE_ASSIGN_OR_RETURN(
      prepared.contents,
      GenerateMarket(*options_.market, DeriveSeed(context_.options.seed, {kPrepareSeed, kMarketStream}),
                     context_.options.name, options_.max_history, [this] { return Stopped(); }));
  const Dataset::Contents& contents = prepared.contents;
  context_.monitor->ReportLog(absl::StrFormat("a market of %d items, %d users and %d logged choices",
                                              contents.item_names.size(), contents.user_names.size(),
                                              contents.event_item.size()));
  results_.numbers["data"] = {{"users", static_cast<double>(contents.user_names.size())},
                              {"items", static_cast<double>(contents.item_names.size())},
                              {"events", static_cast<double>(contents.event_item.size())}};
  return prepared;
}

absl::Status PrepareJob::PlaceTokens(Dataset::Contents* contents) const {
  const std::string& model = options_.sids.model;
  if (model.empty()) return absl::OkStatus();
  SLUICE_ASSIGN_OR_RETURN(const std::string folder, ResolveModelFolder(model));
  const std::string path = JoinPath(folder, "config.json");
  SLUICE_ASSIGN_OR_RETURN(const std::string json, ReadFile(path));
  absl::StatusOr<PolicyConfig> config = PolicyConfig::FromJson(json);
  if (!config.ok()) return Annotate(config.status(), absl::StrCat("prepare.sids.model '", folder, "'"));
  if (config->sid_levels != contents->levels || config->sid_codes != contents->codes) {
    return absl::InvalidArgumentError(absl::StrCat("the model at '", folder, "' has tokens for ", config->sid_levels,
                                                   " levels of ", config->sid_codes, " codes, the data set has ",
                                                   contents->levels, " of ", contents->codes,
                                                   "; add them to the model with python -m sluice.text --levels ",
                                                   contents->levels, " --codes ", contents->codes));
  }
  contents->first_token = config->first_token;
  return absl::OkStatus();
}

absl::Status PrepareJob::AssignSids(int64_t log_items, PreparedEvents* prepared) {
  context_.monitor->SetPhase("semantic IDs");
  SemanticIdOptions sids;
  sids.index = options_.sids.index;
  sids.item_vectors = options_.sids.item_vectors;
  sids.vector_dim = options_.sids.vector_dim;
  sids.quantize.levels = options_.sids.levels;
  sids.quantize.codes = options_.sids.codes;
  sids.quantize.iterations = options_.sids.iterations;
  sids.quantize.unique_level = options_.sids.unique_level;
  sids.quantize.seed = DeriveSeed(context_.options.seed, {kPrepareSeed});
  SLUICE_ASSIGN_OR_RETURN(const SidQuality quality, AssignSemanticIds(sids, log_items, prepared, &item_vectors_));
  context_.monitor->ReportLog(absl::StrFormat("%d semantic IDs of %d levels for %d items; %d items share one",
                                              quality.semantic_ids, prepared->contents.levels, quality.items,
                                              quality.colliding_items));
  std::map<std::string, double>& numbers = results_.numbers["sids"];
  numbers["semantic_ids"] = static_cast<double>(quality.semantic_ids);
  numbers["colliding_items"] = static_cast<double>(quality.colliding_items);
  numbers["largest_collision"] = static_cast<double>(quality.largest_collision);
  for (size_t level = 0; level < quality.entropy_bits.size(); ++level) {
    numbers[absl::StrCat("entropy_bits_", level + 1)] = quality.entropy_bits[level];
    numbers[absl::StrCat("used_codes_", level + 1)] = quality.used_codes[level];
  }
  return absl::OkStatus();
}

absl::Status PrepareJob::Stopped() const {
  switch (context_.monitor->stop()) {
    case StopRequest::kNone:
      return absl::OkStatus();
    case StopRequest::kCancel:
      return absl::CancelledError("cancelled on request");
    case StopRequest::kPreempt:
      return PreemptedError("preempted; run again");
  }
  return absl::OkStatus();
}

absl::Status PrepareJob::TrainRankers(const Dataset& dataset, const std::string& staging) {
  const std::vector<std::vector<int32_t>> sequences = TrainingSequences(dataset);
  if (!options_.ranker.bias) return TrainRanker(dataset, sequences, "ranker", JoinPath(staging, kRankerFolder));
  const ExposureBiasOptions& bias = *options_.ranker.bias;
  const std::vector<std::vector<int32_t>> biased = InjectExposureBias(
      sequences, dataset.num_items(), {.missing = bias.missing, .position = bias.position, .slate = bias.slate},
      DeriveSeed(context_.options.seed, {kPrepareSeed, kBiasStream}));
  int64_t events = 0, left = 0;
  for (const std::vector<int32_t>& sequence : sequences) events += static_cast<int64_t>(sequence.size());
  for (const std::vector<int32_t>& sequence : biased) left += static_cast<int64_t>(sequence.size());
  context_.monitor->ReportLog(
      absl::StrFormat("exposure bias: the sequential ranker sees %d of %d training events", left, events));
  results_.numbers["ranker"]["events_left_share"] =
      events > 0 ? static_cast<double>(left) / static_cast<double>(events) : 0;
  SLUICE_RETURN_IF_ERROR(TrainRanker(dataset, biased, "ranker", JoinPath(staging, kRankerFolder)));
  return TrainRanker(dataset, sequences, "ranker_unbiased", JoinPath(staging, kUnbiasedRankerFolder));
}

absl::Status PrepareJob::TrainRanker(const Dataset& dataset, const std::vector<std::vector<int32_t>>& sequences,
                                     const std::string& which, const std::string& folder) {
  const RankerTrainingOptions& ranker = options_.ranker;
  context_.monitor->SetPhase("training the ranker");
  SequentialRankerConfig config;
  config.num_items = dataset.num_items();
  config.hidden_size = ranker.hidden_size;
  config.num_layers = ranker.layers;
  config.num_heads = ranker.heads;
  config.max_positions = dataset.max_history();
  SequentialTrainingOptions training;
  training.passes = ranker.passes;
  training.learning_rate = ranker.learning_rate;
  training.dropout = ranker.dropout;
  training.batch_sequences = ranker.batch_users;
  training.time_limit = absl::Seconds(ranker.time_limit_s);
  training.seed = DeriveSeed(context_.options.seed, {kPrepareSeed, kInitSeed});
  SLUICE_ASSIGN_OR_RETURN(const SequentialTrainingResult trained,
                          TrainSequentialRanker(
                              sequences, config, training, context_.now,
                              [this](const SequentialTrainingProgress& progress) {
                                context_.monitor->ReportMetrics(static_cast<uint64_t>(progress.step),
                                                                static_cast<uint64_t>(progress.total_steps),
                                                                {{"loss/nll", progress.loss}});
                              },
                              [this] { return context_.monitor->stop() != StopRequest::kNone; }));
  // A stop request ends training well; the job then ends by it, and no half-trained ranker stays behind.
  SLUICE_RETURN_IF_ERROR(Stopped());
  const std::vector<Example> examples = ValidationExamples(context_, dataset, kRankerUsers);
  if (!examples.empty()) {
    SLUICE_ASSIGN_OR_RETURN(const double hit_rate, SequentialHitRate(*trained.ranker, dataset, examples, kTopOfList));
    results_.numbers[which]["validation/hr@10"] = hit_rate;
    const RankingMetrics rule = EvaluateCooccurrenceRule(dataset, examples, kHeadShare, nullptr);
    results_.numbers["rule"]["validation/hr@10"] = rule.HitRate(HitLevel::kItem, kTopOfList).value_or(0);
    context_.monitor->ReportLog(
        absl::StrFormat("rankers on %d validation users: sequential (%s) HR@10 %.4f, co-occurrence rule HR@10 %.4f",
                        examples.size(), which, hit_rate, results_.numbers["rule"]["validation/hr@10"]));
  }
  results_.numbers[which]["passes"] = trained.passes;
  results_.numbers[which]["final_loss"] = trained.final_loss;
  return trained.ranker->Save(folder);
}

absl::Status PrepareJob::Run() {
  const absl::Time started = context_.now();
  SLUICE_ASSIGN_OR_RETURN(const std::unique_ptr<RunFolder> folder, RunFolder::Open(context_.run_folder));
  SLUICE_ASSIGN_OR_RETURN(const bool done, AlreadyDone());
  if (done) {
    context_.monitor->ReportLog("the data set is already prepared by this spec");
    context_.monitor->ReportResult("data set", output());
    return absl::OkStatus();
  }
  SLUICE_ASSIGN_OR_RETURN(PreparedEvents prepared, options_.market ? GenerateEvents() : ReadAndFilter());
  if (!options_.market) SLUICE_RETURN_IF_ERROR(AssignSids(log_items_, &prepared));
  SLUICE_RETURN_IF_ERROR(PlaceTokens(&prepared.contents));
  SLUICE_ASSIGN_OR_RETURN(const std::shared_ptr<const Dataset> dataset, Dataset::FromContents(prepared.contents));
  SLUICE_ASSIGN_OR_RETURN(const std::unique_ptr<DatasetWriter> writer, DatasetWriter::Create(output()));
  SLUICE_RETURN_IF_ERROR(WriteFileAtomically(JoinPath(writer->staging(), kSpecFile), context_.spec_digest));
  if (item_vectors_.rows > 0) {
    SLUICE_RETURN_IF_ERROR(WriteNpy<float>(JoinPath(writer->staging(), kItemVectorsFile),
                                           {item_vectors_.rows, item_vectors_.columns}, item_vectors_.values));
  }
  if (options_.ranker.sequential) SLUICE_RETURN_IF_ERROR(TrainRankers(*dataset, writer->staging()));
  context_.monitor->SetPhase("writing the data set");
  SLUICE_RETURN_IF_ERROR(writer->Finish(prepared.contents));
  results_.kind = "prepare";
  results_.numbers["run"]["seconds"] = absl::ToDoubleSeconds(context_.now() - started);
  results_.texts["data"] = output();
  context_.monitor->ReportResult("data set", output());
  SLUICE_RETURN_IF_ERROR(WriteOutcome(context_, *folder, results_));
  return absl::OkStatus();
}

}  // namespace

absl::Status RunPrepare(const RunContext& context) {
  // One rank works. The others have nothing to wait for: the job ends when the first rank says so.
  return context.is_first() ? PrepareJob(context).Run() : absl::OkStatus();
}

}  // namespace sluice::learner
