#include "learner/run/job_common.h"

#include <torch/types.h>

#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/failpoint/failpoint.h"
#include "common/model_config/model_folder.h"
#include "common/random/random.h"
#include "common/status/status.h"
#include "learner/run/prompt_order.h"
#include "learner/run/run_report.h"

namespace sluice::learner {
namespace {

// About 8/3 of the width, as SwiGLU layers have it, in whole multiples of this.
constexpr int kIntermediateStep = 32;
// Of the names of validation metrics.
constexpr char kValidationPrefix[] = "validation/";

absl::StatusOr<PolicyArchitecture> ArchitectureFromName(const std::string& name) {
  if (name == "qwen3") return PolicyArchitecture::kQwen3;
  if (name == "qwen2") return PolicyArchitecture::kQwen2;
  if (name == "llama") return PolicyArchitecture::kLlama;
  return absl::InvalidArgumentError(absl::StrCat("model.architecture '", name, "' is none of qwen3, qwen2, llama"));
}

int64_t ValueWidth(const ModelOptions& options, int64_t hidden_size) {
  if (!options.value_head) return 0;
  return options.value_hidden_size > 0 ? options.value_hidden_size : hidden_size;
}

}  // namespace

absl::StatusOr<PolicyConfig> NewPolicyConfig(const ModelOptions& options, const Dataset& dataset) {
  PolicyConfig config;
  SLUICE_ASSIGN_OR_RETURN(config.architecture, ArchitectureFromName(options.architecture));
  config.vocab_size = dataset.vocabulary().size();
  config.hidden_size = options.hidden_size;
  config.intermediate_size = options.intermediate_size > 0 ? options.intermediate_size
                                                           : (options.hidden_size * 8 / 3 + kIntermediateStep - 1) /
                                                                 kIntermediateStep * kIntermediateStep;
  config.num_layers = options.layers;
  config.num_heads = options.heads;
  config.num_kv_heads = options.kv_heads;
  config.head_dim = options.head_dim > 0 ? options.head_dim : options.hidden_size / options.heads;
  config.rope_theta = options.rope_theta;
  config.tie_embeddings = options.tie_embeddings;
  config.encoder = options.merged_encoder ? PromptEncoderKind::kMerged : PromptEncoderKind::kCodes;
  config.item_embedding = options.merged_encoder && options.item_embedding;
  config.num_leaves = options.merged_encoder ? dataset.trie().num_leaves() : 0;
  config.catalog_version = dataset.trie().version();
  config.value_hidden = ValueWidth(options, config.hidden_size);
  config.first_token = dataset.vocabulary().first;
  config.begin_token = config.first_token + SidVocabulary::kBegin;
  config.begin_reversed_token = config.first_token + SidVocabulary::kBeginReversed;
  SLUICE_RETURN_IF_ERROR(config.Validate());
  return config;
}

namespace {

absl::StatusOr<std::unique_ptr<Policy>> LoadOrCreatePolicy(const RunContext& context, const Dataset& dataset) {
  const ModelOptions& model = context.options.model;
  if (model.path.empty()) {
    SLUICE_ASSIGN_OR_RETURN(const PolicyConfig config, NewPolicyConfig(model, dataset));
    return Policy::Create(config, dataset.shared_trie(), DeriveSeed(context.options.seed, {kInitSeed}));
  }
  SLUICE_ASSIGN_OR_RETURN(const std::string folder, ResolveModelFolder(model.path));
  absl::StatusOr<std::unique_ptr<Policy>> policy = Policy::Load(folder, dataset.shared_trie());
  if (!policy.ok()) return Annotate(policy.status(), absl::StrCat("model.path '", folder, "'"));
  if ((*policy)->new_leaves() > 0) {
    context.monitor->ReportLog(absl::StrCat("the catalog has ", (*policy)->new_leaves(), " of ",
                                            (*policy)->config().num_leaves, " semantic IDs that the model at '", folder,
                                            "' does not know: their items start as the sum of their codes"));
  }
  if ((*policy)->config().vocab_size < dataset.vocabulary().size()) {
    return absl::InvalidArgumentError(absl::StrCat("the model at '", folder, "' has ", (*policy)->config().vocab_size,
                                                   " tokens and the data set '", dataset.folder(), "' needs ",
                                                   dataset.vocabulary().size(),
                                                   "; train the model on this data set, or give its own"));
  }
  if ((*policy)->config().first_token != dataset.vocabulary().first) {
    return absl::FailedPreconditionError(absl::StrCat(
        "the semantic IDs of the model at '", folder, "' begin at token ", (*policy)->config().first_token,
        " and those of the data set '", dataset.folder(), "' at ", dataset.vocabulary().first,
        "; prepare the data set with prepare.sids.model naming that model, or without it for a model of semantic IDs "
        "alone"));
  }
  // A merged policy's leaves were compared on loading. Of codes alone one catalog's look like another's.
  const std::string& trained_on = (*policy)->config().catalog_version;
  if (!trained_on.empty() && trained_on != dataset.trie().version()) {
    return absl::FailedPreconditionError(
        absl::StrCat("the model at '", folder, "' was trained on catalog ", trained_on, " and the data set '",
                     dataset.folder(), "' has catalog ", dataset.trie().version(),
                     "; give the data set that it was trained on, or remove sluice.catalog_version from its "
                     "config.json if the semantic IDs mean the same"));
  }
  if (model.value_head && !(*policy)->has_value_head()) {
    return (*policy)->WithValueHead(ValueWidth(model, (*policy)->config().hidden_size),
                                    DeriveSeed(context.options.seed, {kInitSeed}));
  }
  return policy;
}

}  // namespace

absl::StatusOr<std::unique_ptr<Policy>> MakePolicy(const RunContext& context, const Dataset& dataset) {
  SLUICE_ASSIGN_OR_RETURN(std::unique_ptr<Policy> policy, LoadOrCreatePolicy(context, dataset));
  SLUICE_RETURN_IF_ERROR(policy->Place(context.placement));
  return policy;
}

namespace {

// What transformers saves of a tokenizer; a model of semantic IDs alone has none of it.
constexpr const char* kTokenizerFiles[] = {
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.json",
    "merges.txt",     "tokenizer.model",       "chat_template.jinja"};

absl::Status CopyTokenizer(const std::string& model, const std::string& target) {
  if (model.empty()) return absl::OkStatus();
  SLUICE_ASSIGN_OR_RETURN(const std::string source, ResolveModelFolder(model));
  for (const char* name : kTokenizerFiles) {
    if (!PathExists(JoinPath(source, name))) continue;
    SLUICE_ASSIGN_OR_RETURN(const std::string content, ReadFile(JoinPath(source, name)));
    SLUICE_RETURN_IF_ERROR(WriteFileAtomically(JoinPath(target, name), absl::string_view(content)));
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status ExportPolicy(const RunContext& context, const Policy& policy, const RunFolder& folder,
                          const std::string& which) {
  const std::string target = folder.export_folder(which);
  const std::string aside = target + ".tmp";
  SLUICE_RETURN_IF_ERROR(RemoveAll(aside));
  SLUICE_RETURN_IF_ERROR(MakeDirectories(aside));
  SLUICE_RETURN_IF_ERROR(CopyTokenizer(context.options.model.path, aside));
  SLUICE_RETURN_IF_ERROR(policy.Save(aside));
  SLUICE_RETURN_IF_ERROR(SyncDirectory(aside));
  SLUICE_RETURN_IF_ERROR(RemoveAll(target));
  return RenamePath(aside, target);
}

std::vector<Example> ValidationExamples(const RunContext& context, const Dataset& dataset, int users) {
  return ChooseExamples(dataset.Examples(SplitLabel::kValidation), users,
                        DeriveSeed(context.options.seed, {kValidationSeed}));
}

absl::StatusOr<std::map<std::string, double>> Validate(const RunContext& context, Policy& policy,
                                                       const Dataset& dataset, const std::vector<Example>& examples,
                                                       const ValidationOptions& options, const EvalActors& actors,
                                                       std::vector<PromptOutcome>* outcomes) {
  context.monitor->SetPhase("validation");
  EvaluationSettings settings;
  settings.actors = actors;
  settings.now = context.now;
  settings.beams = options.beams;
  settings.exclude_history = options.exclude_history;
  settings.unconstrained_beams = kTopOfList;
  SLUICE_ASSIGN_OR_RETURN(const RankingMetrics metrics,
                          EvaluatePolicy(policy, dataset, examples, settings, *context.collective, outcomes,
                                         [](const EvaluationProgress&) { return absl::OkStatus(); }));
  std::map<std::string, double> named;
  for (const auto& [name, value] : metrics.ToMap()) named[absl::StrCat(kValidationPrefix, name)] = value;
  return named;
}

void RecordExamples(const RunContext& context, const RunFolder& folder, ExampleLists latest) {
  if (!context.is_first()) return;
  std::vector<ExampleLists> kept;
  if (const absl::StatusOr<std::string> text = ReadFile(folder.examples()); text.ok()) {
    // A damaged one is begun anew.
    if (absl::StatusOr<std::vector<ExampleLists>> lists = ExamplesFromJson(*text); lists.ok()) kept = *std::move(lists);
  }
  KeepExamples(std::move(latest), &kept);
  if (const absl::Status written = WriteFileAtomically(folder.examples(), ExamplesToJson(kept)); !written.ok()) {
    context.monitor->ReportLog(absl::StrCat("the report will lack these examples: ", written.message()));
  }
}

absl::StatusOr<uint64_t> PublishPolicy(const RunContext& context, const Policy& policy, uint64_t last,
                                       GroupSource* source, SnapshotEncoder* encoder) {
  SLUICE_RETURN_IF_ERROR(SLUICE_FAILPOINT_STATUS("publish/before_reserve"));
  at::Tensor version = torch::zeros({1}, torch::kLong);
  if (context.is_first()) {
    SLUICE_ASSIGN_OR_RETURN(const uint64_t reserved, context.reservations->NextPolicyVersion(last));
    version.fill_(static_cast<int64_t>(reserved));
  }
  SLUICE_RETURN_IF_ERROR(SLUICE_FAILPOINT_STATUS("publish/after_reserve"));
  SLUICE_RETURN_IF_ERROR(context.collective->Broadcast(version, 0));
  const uint64_t published = static_cast<uint64_t>(version.item<int64_t>());
  const at::Tensor arena = policy.parameters().detach().to(at::kCPU, at::kFloat).contiguous();
  SLUICE_RETURN_IF_ERROR(SLUICE_FAILPOINT_STATUS("publish/before_offer"));
  source->Publish(
      encoder->Encode(published, absl::MakeSpan(arena.const_data_ptr<float>(), static_cast<size_t>(arena.numel()))));
  SLUICE_RETURN_IF_ERROR(SLUICE_FAILPOINT_STATUS("publish/after_offer"));
  return published;
}

absl::Status RecordMetrics(const RunContext& context, RunFolder* folder, uint64_t step, uint64_t total_steps,
                           double time_s, const std::map<std::string, double>& values) {
  if (!context.is_first()) return absl::OkStatus();
  SLUICE_RETURN_IF_ERROR(folder->AppendMetrics({.step = step, .time_s = time_s, .values = values}));
  if (const std::string problem = folder->TakeEventsProblem(); !problem.empty()) context.monitor->ReportLog(problem);
  context.monitor->ReportMetrics(step, total_steps, values);
  return absl::OkStatus();
}

absl::StatusOr<std::map<std::string, double>> RewindMetrics(const RunContext& context, RunFolder* folder,
                                                            std::optional<uint64_t> step) {
  std::map<std::string, double> latest;
  if (!context.is_first()) return latest;
  SLUICE_RETURN_IF_ERROR(folder->TruncateMetrics(step));
  SLUICE_ASSIGN_OR_RETURN(const std::vector<MetricsRow> rows, folder->ReadMetrics());
  for (const MetricsRow& row : rows) {
    std::map<std::string, double> validation;
    for (const auto& [name, value] : row.values) {
      if (absl::StartsWith(name, kValidationPrefix)) validation[name] = value;
    }
    if (!validation.empty()) latest = std::move(validation);
  }
  return latest;
}

absl::Status WriteOutcome(const RunContext& context, const RunFolder& folder, RunResults results) {
  AddEnvironment(context, &results);
  SLUICE_RETURN_IF_ERROR(WriteResults(folder.results(), results));
  SLUICE_RETURN_IF_ERROR(WriteRunReport(folder, context.options.name));
  if (results.texts.count("export") > 0) context.monitor->ReportResult("export", results.texts.at("export"));
  context.monitor->ReportResult("report", folder.report());
  context.monitor->ReportResult("results", folder.results());
  return absl::OkStatus();
}

std::string DataDigest(const Dataset& dataset) {
  return dataset.digest().empty() ? dataset.trie().version() : dataset.digest();
}

}  // namespace sluice::learner
