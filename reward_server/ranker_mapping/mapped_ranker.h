// A model outside of this program as a ranker: a mapping makes tensors of queries, the model answers with tensors, the
// mapping makes scores of them.
#ifndef SLUICE_REWARD_SERVER_RANKER_MAPPING_MAPPED_RANKER_H_
#define SLUICE_REWARD_SERVER_RANKER_MAPPING_MAPPED_RANKER_H_

#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "common/sync/mutex.h"
#include "common/time/clock.h"
#include "reward_server/ranker/ranker.h"
#include "reward_server/ranker_mapping/query_encoder.h"

namespace sluice::reward {

// What computes. Thread-safe.
class TensorModel {
 public:
  virtual ~TensorModel() = default;
  // Equal versions score equally.
  virtual const std::string& version() const = 0;
  // Output tensors by name, for inputs in the order of the mapping. Any error is a failure of this call alone.
  virtual absl::StatusOr<std::vector<Tensor>> Run(std::vector<Tensor> inputs, absl::Time deadline) const = 0;
};

// Thread-safe.
class MappedRanker : public Ranker {
 public:
  // `now` is the clock of the model's deadlines.
  MappedRanker(QueryEncoder encoder, std::unique_ptr<const TensorModel> model, NowFunction now);

  const std::string& name() const override { return encoder_.mapping().name; }
  const std::string& version() const override { return version_; }
  const std::vector<std::string>& heads() const override { return heads_; }
  int64_t num_items() const override { return encoder_.dataset().num_items(); }
  int64_t num_users() const override { return encoder_.dataset().num_users(); }
  // As few calls of the model as its limits allow. A call that fails, or whose answer is not what was asked for, fails
  // the queries in it.
  std::vector<absl::StatusOr<ItemScores>> Score(absl::Span<const ItemQuery> queries) const override;

  // Scores the golden groups, or where there are none the first item after itself, and compares. After a mismatch Score
  // refuses until a later Check agrees; that the model does not answer changes nothing. FailedPrecondition: other
  // scores than the golden ones, with the key and both numbers. Other codes: there is no answer.
  absl::Status Check() const;

 private:
  std::vector<absl::StatusOr<ItemScores>> Ask(absl::Span<const ItemQuery> queries) const;
  absl::Status CheckGolden() const;

  const QueryEncoder encoder_;
  const std::unique_ptr<const TensorModel> model_;
  const NowFunction now_;
  const std::vector<std::string> heads_;
  const std::string version_;
  mutable Mutex mutex_;
  mutable absl::Status refused_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace sluice::reward

#endif  // SLUICE_REWARD_SERVER_RANKER_MAPPING_MAPPED_RANKER_H_
