// Decode where the choices are made on the device too: for policies that take the path of devices.
//
// What the host knows (prompts, excluded leaves, targets, the uniform draws of samples, the trie) goes up once; then
// every level is tensor operations: logits, legal children from the trie's tables, the best or the drawn ones, their
// parents, and the step that continues them. Nothing is read back before the last level is chosen; then everything is,
// in one copy.
//
// Every prompt has as many rows as its plan says at that level. Those that the catalog cannot fill, and those of
// prompts that may produce nothing, are computed and marked dead. Rows with equal tokens are not merged, as their
// number would have to be read.
#ifndef SLUICE_COMMON_DECODE_DEVICE_DECODE_H_
#define SLUICE_COMMON_DECODE_DEVICE_DECODE_H_

#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "common/catalog/trie.h"
#include "common/decode/decode.h"
#include "common/model/policy.h"

namespace sluice {

// As Decode (decode.h), of a plan and prompts that it has checked. The same completions as on the processor but where
// two candidates are nearer than rounding; ties go to lower tokens, as there.
absl::StatusOr<std::vector<DecodeResult>> DecodeOnDevice(Policy& policy, const Trie& trie,
                                                         absl::Span<const DecodePrompt> prompts,
                                                         const DecodePlan& plan);

}  // namespace sluice

#endif  // SLUICE_COMMON_DECODE_DEVICE_DECODE_H_
