// One version of the policy, and decoding with it.
#ifndef SLUICE_ACTOR_SAMPLING_POLICY_SNAPSHOT_H_
#define SLUICE_ACTOR_SAMPLING_POLICY_SNAPSHOT_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "actor/rollout/decoder.h"
#include "common/catalog/trie.h"
#include "common/decode/decode.h"
#include "common/model/policy.h"

namespace sluice::actor {

// Not thread-safe.
class PolicySnapshot : public Decoder::Snapshot {
 public:
  PolicySnapshot(std::unique_ptr<Policy> policy, std::shared_ptr<const Trie> trie)
      : policy_(std::move(policy)), trie_(std::move(trie)) {}

  // The weights, to write over: float32, little-endian as x86 and ARM are. Only for a snapshot that nobody else holds.
  // Where they lie on a device this is host memory, which Seal copies there.
  // InvalidArgument: the arena is not of `bytes`.
  absl::StatusOr<absl::Span<char>> Arena(uint64_t bytes);
  // What was written is this version. The device's error, if it does not take the weights.
  absl::Status Seal(uint64_t version);

  // The weights, to read: for as long as this snapshot is held nobody writes to them. Empty where they lie on a device.
  absl::string_view Bytes() const;

  uint64_t version() const override { return version_; }
  const Trie& trie() const override { return *trie_; }

  absl::StatusOr<std::vector<Sampled>> Sample(absl::Span<const LeasedPrompt> prompts, const DecodeSettings& settings,
                                              absl::Span<const uint64_t> seeds) override;
  absl::StatusOr<std::vector<Beams>> Decode(absl::Span<const LeasedPrompt> prompts, const DecodeSettings& settings,
                                            int constrained_beams, int unconstrained_beams) override;

 private:
  // `excluded`: items that must not be found; `appended`: tokens behind the prompt that go through the policy.
  // InvalidArgument: the record is bad.
  absl::StatusOr<DecodePrompt> Prepare(const LeasedPrompt& leased, absl::Span<const int32_t> excluded,
                                       int appended) const;
  absl::StatusOr<PromptInput> Encode(const LeasedPrompt& leased) const;

  std::unique_ptr<Policy> policy_;
  std::shared_ptr<const Trie> trie_;
  at::Tensor staged_;  // on the host, from Arena to Seal; undefined where the weights are written in place
  uint64_t version_ = 0;
};

}  // namespace sluice::actor

#endif  // SLUICE_ACTOR_SAMPLING_POLICY_SNAPSHOT_H_
