// What a learner rank says to an actor, as plain data. The wire form is RankMessage of proto/sluice/v1/rollout.proto.
#ifndef SLUICE_LEARNER_LEDGER_RANK_MESSAGE_H_
#define SLUICE_LEARNER_LEDGER_RANK_MESSAGE_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <variant>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "common/transfer/transfer.h"
#include "common/types/group.h"
#include "learner/options/options.h"
#include "learner/publish/publication.h"

namespace sluice::learner {

// A job as the hub runs it and as actors come to know it.
struct HubJob {
  std::string job_id;
  uint64_t epoch = 0;
  uint64_t seed = 0;
  std::string model_config_json;  // config.json of the policy
  std::string catalog_version;
  int levels = 0;  // L
  // Leaf of a complete semantic ID, -1 if it is not in the catalog; results are checked against it.
  std::function<int32_t(absl::Span<const int32_t>)> find_leaf;
  // staleness 0: synchronous. Scored unless no term of the objective needs it.
  RlOptions options;
  // Groups of one step on this rank.
  int groups_per_step = 0;
  // Over which tokens beams are ordered.
  LogProbSpace beam_space = LogProbSpace::kFull;

  bool synchronous() const { return options.staleness == 0; }
  bool scored() const { return NeedsScores(options); }
};

struct WelcomeMessage {
  std::shared_ptr<const HubJob> job;
};

struct OfferMessage {
  std::string job_id;
  uint64_t policy_version = 0;
  uint64_t payload_bytes = 0;
  std::string checksum;                      // XXH3-128, hexadecimal
  bool staged = false;                       // answer Prepared and wait
  std::shared_ptr<const ChunkTable> chunks;  // for staged ones; may be null
};

struct TransferMessage {
  std::string job_id;
  uint64_t policy_version = 0;
  std::string source;  // address of an actor to fetch from; empty: the rank
};

struct BroadcastMessage {
  std::string job_id;
  uint64_t policy_version = 0;
  GroupPlace place;
  uint64_t chunk_bytes = 0;
  absl::Duration timeout;
};

struct CommitMessage {
  std::string job_id;
  uint64_t policy_version = 0;
};

enum class LeaseKind { kRollout, kDecode, kScore };

struct LeaseMessage {
  std::string job_id;
  uint64_t epoch = 0;
  uint64_t lease_id = 0;
  LeaseKind kind = LeaseKind::kRollout;
  uint64_t policy_version = 0;
  bool exact_version = false;
  absl::Duration deadline;  // from receipt
  uint64_t seed = 0;
  std::vector<Prompt> prompts;
  int constrained_beams = 0;    // kDecode
  int unconstrained_beams = 0;  // kDecode
};

struct AckMessage {
  uint64_t ordinal = 0;
  uint32_t attempt = 0;
  bool accepted = false;
  std::string reason;  // "late", "duplicate", "epoch", "job", "unknown", "stale_version: ...", "invalid: ..."
};

struct JobEndedMessage {
  std::string job_id;
};

using RankMessage = std::variant<WelcomeMessage, OfferMessage, TransferMessage, BroadcastMessage, CommitMessage,
                                 LeaseMessage, AckMessage, JobEndedMessage>;

// The way to one attached actor. Both functions return at once and may be called from any thread.
class ActorSink {
 public:
  virtual ~ActorSink() = default;
  // False if the stream is over or its queue is full; nothing later may then be sent, and Close follows.
  virtual bool Send(const RankMessage& message) = 0;
  // Ends the stream. Idempotent.
  virtual void Close(const absl::Status& status) = 0;
};

// What an actor gives back for one prompt of a lease.
struct AbandonedPrompt {
  uint64_t ordinal = 0;
  uint32_t attempt = 0;
  uint64_t lease_id = 0;
  std::string reason;
  bool bad_data = false;
};

struct ActorResult {
  std::string job_id;
  uint64_t epoch = 0;
  std::variant<ScoredGroup, AbandonedPrompt, DecodedPrompt> outcome;
};

}  // namespace sluice::learner

#endif  // SLUICE_LEARNER_LEDGER_RANK_MESSAGE_H_
