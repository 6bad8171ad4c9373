#include "learner/compare_command.h"

#include <algorithm>
#include <cstdio>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/file/file.h"
#include "common/status/status.h"
#include "learner/evaluate/arm_text.h"
#include "learner/evaluate/compare.h"
#include "learner/evaluate/context_file.h"
#include "learner/run/run_folder.h"

namespace sluice::learner {
namespace {

// `want`: the job that would have the file.
absl::StatusOr<std::string> FileOfRun(const std::string& run, const std::string& runs_folder, const char* name,
                                      const char* want) {
  for (const std::string& folder : {run, JoinPath(runs_folder, run)}) {
    const std::string path = JoinPath(folder, name);
    if (PathExists(path)) return path;
  }
  return absl::NotFoundError(absl::StrCat("'", run, "' is neither the folder nor, below '", runs_folder,
                                          "', the id of a job with a ", name, ". Want ", want));
}

absl::StatusOr<OutcomeTable> OutcomesOfRun(const std::string& run, const std::string& runs_folder) {
  SLUICE_ASSIGN_OR_RETURN(const std::string path,
                          FileOfRun(run, runs_folder, RunFolder::kOutcomesFile, "an evaluate job that has ended"));
  return ReadOutcomes(path);
}

// Prints the comparison within each cell; returns it as JSON.
absl::StatusOr<std::string> CompareByCells(absl::Span<const ComparedArm> arms, CompareOptions options,
                                           const CompareFlags& flags) {
  SLUICE_ASSIGN_OR_RETURN(const std::string path, FileOfRun(flags.cells, flags.runs_folder, RunFolder::kContextsFile,
                                                            "an rl job with rl.prompt_split"));
  SLUICE_ASSIGN_OR_RETURN(const std::string text, ReadFile(path, kMaxContextBytes));
  absl::StatusOr<std::vector<ContextRow>> contexts = ContextsFromText(text);
  if (!contexts.ok()) return Annotate(contexts.status(), path);
  if (options.metrics.empty()) options.metrics = {"hr@10", "ndcg@10"};
  SLUICE_ASSIGN_OR_RETURN(const auto cells, CompareCells(arms, *contexts, options));
  std::string json;
  for (const auto& [cell, comparison] : cells) {
    std::printf("== %s: %s", cell.c_str(), ComparisonToText(comparison).c_str());
    std::printf("\n");
    absl::StrAppend(&json, json.empty() ? "{" : ",", "\"", cell, "\": ", ComparisonToJson(comparison));
  }
  return json + "}\n";
}

}  // namespace

absl::Status CompareCommand(const CompareFlags& flags) {
  std::vector<ComparedArm> arms;
  for (const std::string& text : flags.arms) {
    SLUICE_ASSIGN_OR_RETURN(arms.emplace_back(), ArmFromText(text, [&flags](const std::string& run) {
                              return OutcomesOfRun(run, flags.runs_folder);
                            }));
  }
  CompareOptions options;
  options.bootstrap = {.resamples = flags.resamples, .confidence = flags.confidence, .seed = flags.seed};
  options.metrics = flags.metrics;
  if (!flags.against.empty()) {
    SLUICE_ASSIGN_OR_RETURN(options.against, PlacesOfArms(flags.against, arms));
  }
  if (!flags.cells.empty()) {
    SLUICE_ASSIGN_OR_RETURN(const std::string json, CompareByCells(arms, options, flags));
    return flags.json.empty() ? absl::OkStatus() : WriteFileAtomically(flags.json, json);
  }
  SLUICE_ASSIGN_OR_RETURN(const Comparison comparison, Compare(arms, options));
  std::printf("%s", ComparisonToText(comparison).c_str());
  if (flags.json.empty()) return absl::OkStatus();
  return WriteFileAtomically(flags.json, ComparisonToJson(comparison));
}

}  // namespace sluice::learner
