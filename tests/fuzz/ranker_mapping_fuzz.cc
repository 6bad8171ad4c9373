// A ranker mapping, as a user writes it.
#include "reward_server/ranker_mapping/mapping.h"
#include "reward_server/ranker_mapping/query_encoder.h"
#include "tests/fuzz/fuzz.h"
#include "tests/testing/mapping_text.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  // No folder of that name: a mapping may ask for columns, and gets none.
  const auto mapping = sluice::reward::ParseRankerMapping(sluice::fuzz::Text(data, size), "fuzz", "no such folder");
  if (!mapping.ok()) return 0;
  sluice::fuzz::Require(!mapping->inputs.empty() && mapping->heads()[0] == "score",
                        "a mapping without inputs or score");
  for (const sluice::reward::GoldenGroup& group : mapping->golden) {
    for (const auto& row : group.scores)
      sluice::fuzz::Require(row.size() == group.items.size(), "scores without items");
  }
  const auto encoder = sluice::reward::QueryEncoder::Create(*mapping, sluice::reward::TinyDataset());
  if (!encoder.ok()) return 0;
  const std::vector<sluice::reward::ItemQuery> queries = {{.user = 0, .history = {1, 2}, .items = {0, 1, 2}},
                                                          {.user = -1, .history = {3}, .items = {3}}};
  std::vector<absl::Status> statuses;
  for (const sluice::reward::ModelCall& call : encoder->Plan(queries, &statuses)) {
    for (const sluice::reward::Tensor& tensor : encoder->Encode(queries, call)) {
      const auto count = sluice::reward::ElementCount(tensor.shape, int64_t{1} << 30);
      sluice::fuzz::Require(count.has_value(), "a tensor of no shape");
      if (tensor.type == sluice::reward::TensorType::kBytes) continue;
      sluice::fuzz::Require(
          static_cast<int64_t>(tensor.raw.size()) == *count * sluice::reward::ElementBytes(tensor.type),
          "a tensor whose bytes are not those of its shape");
    }
  }
  return 0;
}
