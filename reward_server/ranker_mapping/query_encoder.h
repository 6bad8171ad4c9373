// Queries to a model's input tensors, and its output tensors to scores, as a mapping says.
//
// Letters: N = (user, item) pairs of a call, B = its users, K = the most items of one of them, H = items of a history.
#ifndef SLUICE_REWARD_SERVER_RANKER_MAPPING_QUERY_ENCODER_H_
#define SLUICE_REWARD_SERVER_RANKER_MAPPING_QUERY_ENCODER_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "common/catalog/dataset.h"
#include "reward_server/ranker/ranker.h"
#include "reward_server/ranker_mapping/mapping.h"
#include "reward_server/ranker_mapping/tensor.h"

namespace sluice::reward {

// Bytes of the inputs of one call at most: half of what a message may have (common/rpc/channel.h).
inline constexpr int64_t kMaxCallBytes = 8 << 20;
// Elements of one output at most.
inline constexpr int64_t kMaxOutputElements = 1 << 24;

// Some items of one query.
struct QuerySlice {
  size_t query = 0;
  size_t first = 0;
  size_t count = 0;
};

// What is asked of the model at once.
struct ModelCall {
  std::vector<QuerySlice> slices;
  int64_t pairs = 0;    // N; under Layout::kUsers B * K, padding included
  int64_t width = 0;    // K
  int64_t history = 0;  // the longest one
};

// A tensor as a model describes it; -1: a size that is free.
struct TensorPromise {
  std::string name;
  std::string type;
  std::vector<int64_t> shape;
};

// Immutable; thread-safe.
class QueryEncoder {
 public:
  // Reads the columns. NotFound, InvalidArgument: a column that is not there, has other rows than the data set, or
  // values that its type does not hold; a type too small for the data set's numbers. Messages name the key.
  static absl::StatusOr<QueryEncoder> Create(const RankerMapping& mapping, std::shared_ptr<const Dataset> dataset);

  // The calls that score all items of the queries, in order; a query is cut only if it fits no call whole. What is
  // wrong with a query is its entry of `statuses`, and it is in no call.
  std::vector<ModelCall> Plan(absl::Span<const ItemQuery> queries, std::vector<absl::Status>* statuses) const;

  // In the order of the mapping's inputs.
  std::vector<Tensor> Encode(absl::Span<const ItemQuery> queries, const ModelCall& call) const;

  // [pair of the call, in order of the slices]. DataLoss: the tensor is not what was asked for. Scores come as they
  // are, finite or not.
  absl::StatusOr<std::vector<float>> Decode(const MappedOutput& output, const Tensor& tensor,
                                            const ModelCall& call) const;

  // Whether the model takes what the mapping gives, and gives what it takes: names, types, shapes. A model that
  // promises nothing is not checked. InvalidArgument: a line a mistake, each with the key and the remedy.
  absl::Status CheckPromises(absl::Span<const TensorPromise> inputs, absl::Span<const TensorPromise> outputs) const;

  const RankerMapping& mapping() const { return mapping_; }
  const Dataset& dataset() const { return *dataset_; }
  // Of the columns.
  const std::string& digest() const { return digest_; }

 private:
  // The numbers that an input looks up, in its type: one row a user or item.
  struct Column {
    std::string raw;
    int64_t width = 0;      // elements of a row; 0: no column
    int64_t row_bytes = 0;  // of one number or row; of BYTES the longest
    bool flat = false;      // rows are numbers, not lists of them
  };

  QueryEncoder() = default;
  absl::Status Load(const MappedInput& input, Column* column) const;
  int64_t Bytes(int64_t users, int64_t pairs, int64_t history) const;
  std::vector<int64_t> Shape(size_t input, int64_t rows, int64_t width, int64_t history) const;
  void AppendEntity(size_t input, int32_t number, std::string* raw) const;
  void AppendUserSide(size_t input, const ItemQuery& query, int64_t history, std::string* raw) const;
  absl::Status CheckQuery(const ItemQuery& query) const;

  RankerMapping mapping_;
  std::shared_ptr<const Dataset> dataset_;
  std::vector<Column> columns_;  // one an input
  std::string digest_;
};

}  // namespace sluice::reward

#endif  // SLUICE_REWARD_SERVER_RANKER_MAPPING_QUERY_ENCODER_H_
