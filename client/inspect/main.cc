// sluice-inspect: what is inside a model, data set, catalog or checkpoint, and what a model says of given tokens.
#include <CLI/CLI.hpp>
#include <fstream>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>

#include "absl/status/status.h"
#include "client/inspect/catalog_source.h"
#include "client/inspect/describe.h"
#include "client/inspect/score_lines.h"
#include "common/model/policy.h"
#include "common/model_config/model_folder.h"
#include "common/status/exit_code.h"
#include "common/status/status.h"
#include "common/tensor/device.h"

namespace sluice {
namespace {

struct ScoreFlags {
  std::string model;
  std::string items;
  std::string input;
  std::string format = "jsonl";
  std::string space = "full";
  int beams = 10;
  std::string device = "cpu";
  std::string precision = "fp32";
};

absl::Status Print(const absl::StatusOr<nlohmann::ordered_json>& document, const std::string& format) {
  if (!document.ok()) return document.status();
  std::cout << (format == "json" ? document->dump(2) + "\n" : RenderText(*document)) << std::flush;
  if (!std::cout) return absl::UnavailableError("standard output cannot be written");
  return absl::OkStatus();
}

absl::Status Score(const ScoreFlags& flags) {
  SLUICE_ASSIGN_OR_RETURN(const Placement placement, OpenPlacement(flags.device, flags.precision));
  SLUICE_ASSIGN_OR_RETURN(const std::shared_ptr<const Trie> trie, LoadCatalog(flags.items));
  SLUICE_ASSIGN_OR_RETURN(const std::string folder, ResolveModelFolder(flags.model));
  SLUICE_ASSIGN_OR_RETURN(const std::unique_ptr<Policy> policy, Policy::Load(folder, trie));
  SLUICE_RETURN_IF_ERROR(policy->Place(placement));
  ScoreOptions options;
  options.beams = flags.beams;
  options.space = flags.space == "trie" ? LogProbSpace::kTrie : LogProbSpace::kFull;
  if (flags.input == "-") return ScoreLines(std::cin, "standard input", *policy, *trie, options, std::cout);
  std::ifstream input(flags.input, std::ios::binary);
  if (!input) return absl::NotFoundError("the input file '" + flags.input + "' cannot be opened");
  return ScoreLines(input, flags.input, *policy, *trie, options, std::cout);
}

int Run(int argc, char** argv) {
  CLI::App app("Says what is inside a model, data set, catalog or checkpoint, and scores completions with a model.");
  app.name("sluice-inspect");
  app.require_subcommand(1);
  absl::Status status;
  std::string path;
  std::string format = "text";

  const auto add_description = [&](const std::string& name, const std::string& what, const std::string& path_help,
                                   absl::StatusOr<nlohmann::ordered_json> (*describe)(const std::string&)) {
    CLI::App* command = app.add_subcommand(name, what);
    command->add_option("DIR", path, path_help)->required();
    command->add_option("-o,--output", format, "text or json")->check(CLI::IsMember({"text", "json"}));
    command->callback([&, describe] { status = Print(describe(path), format); });
  };
  add_description("model", "A model: configuration, tensors, files.",
                  "folder with config.json and safetensors, or of a run", &DescribeModel);
  add_description("dataset", "A prepared data set: sizes, splits, catalog; checks every digest.",
                  "folder that a prepare job wrote", &DescribeDataset);
  add_description("trie", "A catalog: levels, fan-out, collisions.",
                  "folder of a prepared data set, or a JSON list with one list of token ids per item", &DescribeTrie);
  add_description("checkpoint", "A checkpoint of a job: step, policy version, spec, files; checks every digest.",
                  "folder of one checkpoint", &DescribeCheckpoint);

  ScoreFlags flags;
  CLI::App* score = app.add_subcommand("score", "Log-probabilities and beams for JSON lines of prompts.");
  score->add_option("--model", flags.model, "folder with config.json and safetensors, or of a run")->required();
  score->add_option("--items", flags.items, "JSON list with one list of token ids per item, or a prepared data set")
      ->required();
  score
      ->add_option("--input", flags.input,
                   "JSON lines {\"prompt\": [ids], \"completions\": [[ids], ...]}, or {\"history\": [item ids], ...}; "
                   "- reads standard input")
      ->required();
  score->add_option("-o,--output", flags.format, "jsonl")->check(CLI::IsMember({"jsonl"}));
  score->add_option("--beams", flags.beams, "width of the beam search; 0: no beams")->check(CLI::Range(0, 4096));
  score->add_option("--space", flags.space, "log-probabilities that beams are ordered by: full or trie")
      ->check(CLI::IsMember({"full", "trie"}));
  score->add_option("--device", flags.device, kDeviceHelp)->capture_default_str();
  score->add_option("--precision", flags.precision, kPrecisionHelp)->capture_default_str();
  score->callback([&] { status = Score(flags); });

  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : static_cast<int>(ExitCode::kUsage);
  }
  if (!status.ok()) std::cerr << "sluice-inspect: " << status.message() << "\n";
  return static_cast<int>(ExitCodeFor(status));
}

}  // namespace
}  // namespace sluice

int main(int argc, char** argv) { return sluice::Run(argc, argv); }
