// What a server of the Open Inference Protocol answers: bytes to a message, to tensors, to scores.
#include "reward_server/ranker_mapping/query_encoder.h"
#include "reward_server/ranker_remote/inference_wire.h"
#include "tests/fuzz/fuzz.h"
#include "tests/testing/mapping_text.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using sluice::reward::MappedOutput;
  static const auto& encoder = *new sluice::reward::QueryEncoder(
      sluice::reward::QueryEncoder::Create(
          sluice::reward::ParseRankerMapping(
              sluice::reward::MappingWith("score: {}", "score: {}\n  click: {output: both, column: 1}"), "fuzz", "")
              .value(),
          sluice::reward::TinyDataset())
          .value());
  static const std::vector<sluice::reward::ItemQuery> queries = {{.user = 0, .history = {1}, .items = {0, 1, 2}}};
  std::vector<absl::Status> statuses;
  static const auto calls = encoder.Plan(queries, &statuses);

  inference::ModelInferResponse answer;
  if (!answer.ParseFromArray(data, static_cast<int>(size))) return 0;
  const absl::Status answerer = sluice::reward::CheckAnswerer(encoder.mapping(), "1", answer);
  sluice::fuzz::Require(answerer.message().size() < 4000, "an endless message");
  const auto tensors = sluice::reward::AnsweredTensors(std::move(answer));
  if (!tensors.ok()) {
    sluice::fuzz::Require(tensors.status().message().size() < 4000, "an endless message");
    return 0;
  }
  for (const sluice::reward::Tensor& tensor : *tensors) {
    for (const MappedOutput& output : encoder.mapping().outputs) {
      const auto scores = encoder.Decode(output, tensor, calls[0]);
      if (scores.ok()) sluice::fuzz::Require(scores->size() == 3, "other scores than were asked for");
    }
  }
  return 0;
}
