// A model that Python exported as a file, computed in this process: TorchScript (.pt), or an AOTInductor package
// (.pt2), which is machine code. Either is a program: who may write the file may run anything here.
#ifndef SLUICE_REWARD_SERVER_RANKER_TORCH_EXPORTED_MODEL_H_
#define SLUICE_REWARD_SERVER_RANKER_TORCH_EXPORTED_MODEL_H_

#include <memory>

#include "absl/status/statusor.h"
#include "reward_server/ranker_mapping/mapped_ranker.h"
#include "reward_server/ranker_mapping/query_encoder.h"

namespace sluice::reward {

// Loads the file that the encoder's mapping names. Inputs go in by their order in the mapping; outputs are called by
// their position, "0", "1", ..., or by their key where TorchScript answers with a dict. The deadline of a call is not
// looked at: what computes here cannot be interrupted. Runs on the processor, on the threads that at::set_num_threads
// says.
//
// NotFound: no file. DataLoss: it is damaged, or no such file. FailedPrecondition: made by another torch, or for
// another processor, with the remedy. The shapes that it takes are seen at the first call.
absl::StatusOr<std::unique_ptr<TensorModel>> LoadExportedModel(const QueryEncoder& encoder);

}  // namespace sluice::reward

#endif  // SLUICE_REWARD_SERVER_RANKER_TORCH_EXPORTED_MODEL_H_
