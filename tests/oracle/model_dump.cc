// The policy's side of the comparison with transformers (compare_transformers.py):
//
//   model_dump logits FOLDER ROWS.json OUT.safetensors
//     ROWS.json: a list of rows of entries (token >= 0, merged item -1 - leaf). Writes for row i the tensor "<i>",
//     [entries, vocabulary], by the training pass, and "decoded.<i>", the last position's logits by prefill and one
//     step.
//   model_dump create CONFIG.json SEED FOLDER [LEAVES.json]
//     Saves a random policy into FOLDER. LEAVES.json: the semantic IDs of a merged policy's items.
#include <torch/types.h>

#include <cstdint>
#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "common/catalog/trie.h"
#include "common/file/file.h"
#include "common/model/policy.h"
#include "common/safetensors/safetensors.h"
#include "common/status/status.h"
#include "tests/common/model/model_testing.h"

namespace sluice {
namespace {

using Rows = std::vector<std::vector<int32_t>>;

absl::StatusOr<Rows> ReadRows(const std::string& path) {
  SLUICE_ASSIGN_OR_RETURN(const std::string text, ReadFile(path));
  return nlohmann::json::parse(text).get<Rows>();
}

absl::Status DumpLogits(const std::string& folder, const std::string& rows_path, const std::string& out) {
  SLUICE_ASSIGN_OR_RETURN(const std::unique_ptr<Policy> policy, Policy::Load(folder, nullptr));
  SLUICE_ASSIGN_OR_RETURN(const Rows rows, ReadRows(rows_path));
  c10::InferenceMode inference;
  TreeBatch batch;
  batch.prompts = rows;
  SLUICE_ASSIGN_OR_RETURN(const TreeOutput output, policy->ForwardTree(batch));
  std::vector<at::Tensor> logits;
  std::vector<std::string> names;
  for (size_t i = 0; i < rows.size(); ++i) {
    names.push_back(absl::StrCat(i));
    logits.push_back(
        policy->Logits(output.hidden.narrow(0, output.trunk_first_row[i], static_cast<int64_t>(rows[i].size()))));
  }
  // All but the last entry of each row as prompts, the last one as a step; it must be a token.
  Rows prompts = rows;
  std::vector<int32_t> last;
  for (auto& prompt : prompts) {
    last.push_back(prompt.back());
    prompt.pop_back();
  }
  SLUICE_ASSIGN_OR_RETURN(const Policy::Prefilled prefilled, policy->Prefill(prompts, 1));
  SLUICE_ASSIGN_OR_RETURN(const at::Tensor stepped, policy->Step(prefilled.state.get(), last, {}, 1));
  const at::Tensor decoded = policy->Logits(stepped);
  for (size_t i = 0; i < rows.size(); ++i) {
    names.push_back(absl::StrCat("decoded.", i));
    logits.push_back(decoded[static_cast<int64_t>(i)]);
  }
  std::vector<TensorToWrite> tensors;
  for (size_t i = 0; i < names.size(); ++i) {
    logits[i] = logits[i].contiguous();
    tensors.push_back({names[i], TensorDtype::kF32, logits[i].sizes().vec(), logits[i].data_ptr(),
                       static_cast<int64_t>(logits[i].nbytes())});
  }
  return WriteSafetensors(out, tensors);
}

absl::Status CreatePolicy(const std::string& config_path, uint64_t seed, const std::string& folder,
                          const std::string& leaves_path) {
  SLUICE_ASSIGN_OR_RETURN(const std::string json, ReadFile(config_path));
  nlohmann::json config_json = nlohmann::json::parse(json);
  std::shared_ptr<const Trie> trie;
  if (!leaves_path.empty()) {
    SLUICE_ASSIGN_OR_RETURN(const Rows leaves, ReadRows(leaves_path));
    std::vector<int32_t> tokens;
    for (const auto& leaf : leaves) tokens.insert(tokens.end(), leaf.begin(), leaf.end());
    SLUICE_ASSIGN_OR_RETURN(Trie built, Trie::Build(static_cast<int>(leaves[0].size()), tokens));
    trie = std::make_shared<const Trie>(std::move(built));
    config_json["sluice"]["num_leaves"] = trie->num_leaves();
    config_json["sluice"]["catalog_version"] = trie->version();
  }
  SLUICE_ASSIGN_OR_RETURN(const PolicyConfig config, PolicyConfig::FromJson(config_json.dump()));
  return testing::RandomPolicy(config, trie, seed, at::kFloat)->Save(folder);
}

absl::Status Run(const std::vector<std::string>& arguments) {
  uint64_t seed = 0;
  if (arguments.size() == 4 && arguments[0] == "logits") {
    return DumpLogits(arguments[1], arguments[2], arguments[3]);
  }
  if ((arguments.size() == 4 || arguments.size() == 5) && arguments[0] == "create" &&
      absl::SimpleAtoi(arguments[2], &seed)) {
    return CreatePolicy(arguments[1], seed, arguments[3], arguments.size() == 5 ? arguments[4] : "");
  }
  return absl::InvalidArgumentError(
      "want: logits FOLDER ROWS.json OUT.safetensors | create CONFIG.json SEED FOLDER [LEAVES.json]");
}

}  // namespace
}  // namespace sluice

int main(int argc, char** argv) {
  const absl::Status status = sluice::Run(std::vector<std::string>(argv + 1, argv + argc));
  if (status.ok()) return 0;
  std::fprintf(stderr, "model_dump: %s\n", status.ToString().c_str());
  return 1;
}
