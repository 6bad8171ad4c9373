// Between proto/inference/open_inference.proto and the mapping's tensors. What comes is foreign: every function takes
// any message and fails with a status.
#ifndef SLUICE_REWARD_SERVER_RANKER_REMOTE_INFERENCE_WIRE_H_
#define SLUICE_REWARD_SERVER_RANKER_REMOTE_INFERENCE_WIRE_H_

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "inference/open_inference.pb.h"
#include "reward_server/ranker_mapping/mapping.h"
#include "reward_server/ranker_mapping/query_encoder.h"
#include "reward_server/ranker_mapping/tensor.h"

namespace sluice::reward {

// Of an answer, at most; the mapping's own limit is kMaxMappedTensors.
inline constexpr int kMaxAnsweredTensors = 256;
// Of what a peer said, in a message.
inline constexpr size_t kMaxQuotedBytes = 300;

// A request for the mapping's outputs, without an id.
::inference::ModelInferRequest InferRequest(const RankerMapping& mapping, std::vector<Tensor> inputs);

// The tensors of an answer. DataLoss: too many of them; typed and raw contents at once, or contents in another field
// than the datatype's; an unknown datatype; a number of raw contents other than that of outputs. Sizes are
// QueryEncoder's to check.
absl::StatusOr<std::vector<Tensor>> AnsweredTensors(::inference::ModelInferResponse answer);

// Whether the answer is of the model that was asked, in the version that it began with. FailedPrecondition: of another
// one.
absl::Status CheckAnswerer(const RankerMapping& mapping, const std::string& version,
                           const ::inference::ModelInferResponse& answer);

std::vector<TensorPromise> Promises(
    const ::google::protobuf::RepeatedPtrField<::inference::ModelMetadataResponse::TensorMetadata>& tensors);

// What a peer said, cut to what a message can hold.
std::string Quoted(const std::string& text);

}  // namespace sluice::reward

#endif  // SLUICE_REWARD_SERVER_RANKER_REMOTE_INFERENCE_WIRE_H_
