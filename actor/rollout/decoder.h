// What the rollout worker needs of a policy: completions of prompts.
// actor/sampling implements it with LibTorch.
#ifndef SLUICE_ACTOR_ROLLOUT_DECODER_H_
#define SLUICE_ACTOR_ROLLOUT_DECODER_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "actor/rollout/lease_block.h"
#include "common/catalog/trie.h"
#include "common/types/group.h"

namespace sluice::actor {

// Not thread-safe unless the implementation says so: one worker, one decoder.
class Decoder {
 public:
  virtual ~Decoder() = default;

  // A fixed policy snapshot and its catalog. Held while a block is worked on,
  // so that a whole block comes from one version even if another one is loaded
  // meanwhile.
  class Snapshot {
   public:
    virtual ~Snapshot() = default;
    virtual uint64_t version() const = 0;
    virtual const Trie& trie() const = 0;

    // One answer a prompt. `status` is InvalidArgument if the record itself is
    // bad (unknown item, empty history, longer than the policy allows); the
    // other prompts are decoded without it.
    struct Sampled {
      absl::Status status;
      std::vector<Completion> completions;  // [G], fewer if the catalog holds
                                            // too few allowed leaves
      Completion target;                    // teacher-forced; no tokens if the prompt has no target
    };
    // seeds[b]: the only source of chance of prompt b. An error fails the whole
    // block.
    virtual absl::StatusOr<std::vector<Sampled>> Sample(absl::Span<const LeasedPrompt> prompts,
                                                        const DecodeSettings& settings,
                                                        absl::Span<const uint64_t> seeds) = 0;

    struct Beams {
      absl::Status status;
      std::vector<Completion> constrained;
      std::vector<Completion> unconstrained;
    };
    // Beams for evaluation, descending by log-probability in
    // settings.beam_space, without the leaves of Prompt::excluded; a width of
    // 0 asks for none.
    virtual absl::StatusOr<std::vector<Beams>> Decode(absl::Span<const LeasedPrompt> prompts,
                                                      const DecodeSettings& settings, int constrained_beams,
                                                      int unconstrained_beams) = 0;
  };

  // The latest verified weights; null before the first.
  virtual std::shared_ptr<Snapshot> Current() const = 0;
};

}  // namespace sluice::actor

#endif  // SLUICE_ACTOR_ROLLOUT_DECODER_H_
