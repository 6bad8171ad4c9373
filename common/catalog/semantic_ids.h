// Semantic IDs from scratch: item vectors, quantised level by level.
//
//   events -> FactorizeCooccurrence -> vectors -> QuantizeResidually -> codes
//
// Everything is deterministic: the same input and seed give the same codes on the same kind of machine.
#ifndef SLUICE_COMMON_CATALOG_SEMANTIC_IDS_H_
#define SLUICE_COMMON_CATALOG_SEMANTIC_IDS_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/catalog/dataset.h"
#include "common/catalog/npy.h"
#include "common/catalog/prepare.h"
#include "common/catalog/sid_index.h"

namespace sluice {

// Vectors of length 1 from who-is-near-whom in the TRAINING events only: [items, dim].
//
// Two items of one user at distance d <= 4 add 1/d to a symmetric matrix C; its positive pointwise mutual information,
// max(0, log(C[i][j] * sum / (row[i] * column[j]))) with columns raised to 3/4 (so that rare items do not look closer
// than they are), is factorised by a randomised truncated SVD into U * sqrt(S), and rows are scaled to length 1 (so
// that popularity does not decide the first code). An item that never met another one gets a random direction.
//
// Sources: Levy and Goldberg 2014 (factorised PMI), Levy et al. 2015 (3/4, sqrt(S)), Halko et al. 2011, algorithm 4.4
// (randomised range finder with power iterations). dim is cut to what the number of items allows.
Matrix FactorizeCooccurrence(const Dataset::Contents& contents, int dim, uint64_t seed);

struct QuantizeOptions {
  int levels = 3;       // quantised levels, at least 1
  int codes = 256;      // of each level, at least 2
  int iterations = 30;  // Lloyd iterations a level, at most
  // Adds a last level that counts the items of one SID, 0, 1, 2, ... by item number, unless SIDs are unique already.
  bool unique_level = true;
  uint64_t seed = 1;
};

// Residual quantised k-means: level l clusters what is left of every vector after the centroids of the levels before
// it. k-means++ start, Lloyd iterations until nothing moves, an empty cluster takes over the farthest vector. Trained
// on at most 256 vectors a code, chosen at random.
//
// With a unique level a SID holds at most `codes` items: those beyond that take the nearest other code of the last
// quantised level that has room. `residual_share`, if not null, gets per quantised level the squared length left, as
// a share of the variance.
// InvalidArgument: options out of range, or no room left.
absl::StatusOr<SidTable> QuantizeResidually(const Matrix& vectors, const QuantizeOptions& options,
                                            std::vector<double>* residual_share = nullptr);

// How well a table of semantic IDs uses its codes.
struct SidQuality {
  int64_t items = 0;
  int64_t semantic_ids = 0;            // distinct
  int64_t colliding_items = 0;         // that share theirs
  int64_t largest_collision = 1;       // most items on one
  std::vector<int> used_codes;         // [levels]
  std::vector<double> entropy_bits;    // [levels], of the codes over the items; at most log2(codes)
  std::vector<double> residual_share;  // [quantised levels]; empty for an index file
};
SidQuality MeasureSids(const SidTable& table);

struct SemanticIdOptions {
  std::string index;         // JSON file of ready-made semantic IDs; empty: quantise vectors
  std::string item_vectors;  // .npy [items of the event log, dim]; empty: factorise the training events
  int vector_dim = 64;       // of the factorisation
  QuantizeOptions quantize;  // with an index only `codes` counts: its levels and its collisions stay as they are
};

// Fills levels, codes and item_codes of the prepared events, adds a note on where they come from, and measures them.
// `vectors`, if not null, gets the item vectors that the IDs were made from, [items, dim]; none from an index.
// Errors as ReadSidIndex, ReadNpyMatrix and QuantizeResidually; InvalidArgument if the vectors have another number of
// rows than the event log has items.
absl::StatusOr<SidQuality> AssignSemanticIds(const SemanticIdOptions& options, int64_t log_items,
                                             PreparedEvents* prepared, Matrix* vectors = nullptr);

}  // namespace sluice

#endif  // SLUICE_COMMON_CATALOG_SEMANTIC_IDS_H_
