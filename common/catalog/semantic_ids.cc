#include "common/catalog/semantic_ids.h"

#include <Eigen/Dense>
#include <Eigen/SparseCore>
#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <numeric>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/random/random.h"
#include "common/status/status.h"

namespace sluice {
namespace {

using RowMatrix = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
using SparseRows = Eigen::SparseMatrix<float, Eigen::RowMajor>;

constexpr int kWindow = 4;
constexpr double kColumnPower = 0.75;
constexpr int kOversampling = 10;
constexpr int kPowerIterations = 4;
constexpr int64_t kPointsPerCode = 256;  // more move a centroid by little
constexpr int64_t kBlockRows = 1024;     // of points in one matrix product
constexpr uint64_t kFactorStream = 1;
constexpr uint64_t kLevelStream = 2;
constexpr uint64_t kLonelyStream = 4;

// C of FactorizeCooccurrence; both triangles.
SparseRows CountNeighbours(const Dataset::Contents& contents) {
  std::vector<Eigen::Triplet<float>> entries;
  std::vector<int32_t> events;
  for (size_t user = 0; user + 1 < contents.first_event.size(); ++user) {
    events.clear();
    for (int64_t e = contents.first_event[user]; e < contents.first_event[user + 1]; ++e) {
      if (contents.event_split[e] == SplitLabel::kTrain) events.push_back(contents.event_item[e]);
    }
    for (size_t a = 0; a < events.size(); ++a) {
      for (size_t d = 1; d <= kWindow && a + d < events.size(); ++d) {
        if (events[a] == events[a + d]) continue;
        const float weight = 1.0f / static_cast<float>(d);
        entries.emplace_back(events[a], events[a + d], weight);
        entries.emplace_back(events[a + d], events[a], weight);
      }
    }
  }
  const auto items = static_cast<Eigen::Index>(contents.item_names.size());
  SparseRows counts(items, items);
  counts.setFromTriplets(entries.begin(), entries.end());
  return counts;
}

// Counts to positive pointwise mutual information, symmetric: the two directions differ by the power and are averaged
// in the logarithm.
void ToMutualInformation(SparseRows* counts) {
  std::vector<double> row_sum(counts->rows(), 0);
  for (Eigen::Index row = 0; row < counts->rows(); ++row) {
    for (SparseRows::InnerIterator it(*counts, row); it; ++it) row_sum[row] += it.value();
  }
  const double total = std::accumulate(row_sum.begin(), row_sum.end(), 0.0);
  double powered = 0;
  for (const double sum : row_sum) powered += std::pow(sum, kColumnPower);
  // log(C / total) - log p(i) - log p'(j), with p' = row^.75 / sum of row^.75.
  std::vector<double> minus_log(row_sum.size(), 0);
  for (size_t i = 0; i < row_sum.size(); ++i) {
    if (row_sum[i] == 0) continue;
    const double log_plain = std::log(row_sum[i] / total);
    const double log_powered = kColumnPower * std::log(row_sum[i]) - std::log(powered);
    minus_log[i] = -(log_plain + log_powered) / 2;
  }
  for (Eigen::Index row = 0; row < counts->rows(); ++row) {
    for (SparseRows::InnerIterator it(*counts, row); it; ++it) {
      const double information = std::log(it.value() / total) + minus_log[row] + minus_log[it.col()];
      it.valueRef() = static_cast<float>(std::max(0.0, information));
    }
  }
}

RowMatrix Orthonormal(const RowMatrix& columns) {
  const Eigen::HouseholderQR<Eigen::MatrixXf> qr(columns);
  return qr.householderQ() * Eigen::MatrixXf::Identity(columns.rows(), columns.cols());
}

// Each row to length 1; rows of zeros become random directions.
void NormalizeRows(uint64_t seed, RowMatrix* rows) {
  for (Eigen::Index row = 0; row < rows->rows(); ++row) {
    if (rows->row(row).squaredNorm() < 1e-12f) {
      Random random(DeriveSeed(seed, {kLonelyStream, static_cast<uint64_t>(row)}));
      for (Eigen::Index i = 0; i < rows->cols(); ++i) (*rows)(row, i) = static_cast<float>(random.Normal());
    }
    rows->row(row).normalize();
  }
}

// --- k-means ---

struct Assignment {
  std::vector<int32_t> code;
  std::vector<float> distance;  // squared
};

Assignment Assign(const RowMatrix& points, const RowMatrix& centroids) {
  Assignment result;
  result.code.resize(points.rows());
  result.distance.resize(points.rows());
  const Eigen::VectorXf squares = centroids.rowwise().squaredNorm();
  RowMatrix products;
  for (Eigen::Index begin = 0; begin < points.rows(); begin += kBlockRows) {
    const Eigen::Index rows = std::min<Eigen::Index>(kBlockRows, points.rows() - begin);
    products.noalias() = points.middleRows(begin, rows) * centroids.transpose();
    for (Eigen::Index row = 0; row < rows; ++row) {
      Eigen::Index best = 0;
      const float value = (squares.transpose() - 2 * products.row(row)).minCoeff(&best);
      result.code[begin + row] = static_cast<int32_t>(best);
      result.distance[begin + row] = std::max(0.0f, value + points.row(begin + row).squaredNorm());
    }
  }
  return result;
}

// k-means++: each next centre is a point drawn with probability proportional to its squared distance to the nearest
// centre so far. Fewer than `codes` if there are fewer distinct points. Source: Arthur and Vassilvitskii 2007.
RowMatrix FirstCentroids(const RowMatrix& points, int codes, Random& random) {
  RowMatrix centroids(codes, points.cols());
  std::vector<double> distance(points.rows(), std::numeric_limits<double>::max());
  Eigen::Index next = static_cast<Eigen::Index>(random.Below(points.rows()));
  for (int count = 0;; ++count) {
    centroids.row(count) = points.row(next);
    if (count + 1 == codes) return centroids;
    double total = 0;
    for (Eigen::Index i = 0; i < points.rows(); ++i) {
      distance[i] = std::min<double>(distance[i], (points.row(i) - centroids.row(count)).squaredNorm());
      total += distance[i];
    }
    if (total <= 0) return centroids.topRows(count + 1);
    double left = random.Uniform() * total;
    next = 0;
    for (Eigen::Index i = 0; i < points.rows(); ++i) {
      if (distance[i] <= 0) continue;
      next = i;  // the last one with a distance, should rounding leave something of `left`
      left -= distance[i];
      if (left < 0) break;
    }
  }
}

// Means of the assigned points. An empty cluster takes the point that is farthest from its centroid and not taken yet.
void MoveCentroids(const RowMatrix& points, Assignment* assignment, RowMatrix* centroids) {
  std::vector<int64_t> count(centroids->rows(), 0);
  Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor> sum =
      Eigen::MatrixXd::Zero(centroids->rows(), centroids->cols());
  for (Eigen::Index i = 0; i < points.rows(); ++i) {
    ++count[assignment->code[i]];
    sum.row(assignment->code[i]) += points.row(i).cast<double>();
  }
  for (Eigen::Index c = 0; c < centroids->rows(); ++c) {
    if (count[c] > 0) {
      centroids->row(c) = (sum.row(c) / static_cast<double>(count[c])).cast<float>();
      continue;
    }
    const auto farthest = std::max_element(assignment->distance.begin(), assignment->distance.end());
    centroids->row(c) = points.row(farthest - assignment->distance.begin());
    *farthest = 0;
  }
}

RowMatrix KMeans(const RowMatrix& points, const QuantizeOptions& options, uint64_t seed) {
  RowMatrix sample;
  const int64_t limit = kPointsPerCode * options.codes;
  const RowMatrix* training = &points;
  if (points.rows() > limit) {
    sample.resize(limit, points.cols());
    for (int64_t i = 0; i < limit; ++i) {
      sample.row(i) = points.row(static_cast<Eigen::Index>(PermutedIndex(seed, points.rows(), i)));
    }
    training = &sample;
  }
  Random random(seed);
  RowMatrix centroids = FirstCentroids(*training, options.codes, random);
  std::vector<int32_t> before;
  for (int i = 0; i < options.iterations; ++i) {
    Assignment assignment = Assign(*training, centroids);
    if (assignment.code == before) break;
    before = assignment.code;
    MoveCentroids(*training, &assignment, &centroids);
  }
  return centroids;
}

// --- The unique level ---

// Adds the last level. `residuals` and `centroids` are those of the last quantised level.
absl::StatusOr<SidTable> AddUniqueLevel(const SidTable& table, const RowMatrix& residuals, const RowMatrix& centroids) {
  const int levels = table.levels;
  const auto items = static_cast<int64_t>(table.item_codes.size()) / levels;
  std::map<std::vector<int32_t>, int32_t> taken;  // codes -> items that have them
  SidTable result;
  result.levels = levels + 1;
  result.codes = table.codes;
  bool unique = true;
  for (int64_t item = 0; item < items; ++item) {
    std::vector<int32_t> codes(table.item_codes.begin() + item * levels,
                               table.item_codes.begin() + (item + 1) * levels);
    if (taken[codes] >= table.codes) {
      const Eigen::VectorXf distance = (centroids.rowwise() - residuals.row(item)).rowwise().squaredNorm();
      std::vector<int32_t> order(centroids.rows());
      std::iota(order.begin(), order.end(), 0);
      std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) { return distance[a] < distance[b]; });
      const auto room = std::find_if(order.begin(), order.end(), [&](int32_t code) {
        codes.back() = code;
        return taken[codes] < table.codes;
      });
      if (room == order.end()) {
        return absl::InvalidArgumentError(absl::StrCat("item ", item, ": all semantic IDs near it hold ", table.codes,
                                                       " items already; set more codes or levels"));
      }
    }
    const int32_t place = taken[codes]++;
    unique = unique && place == 0;
    result.item_codes.insert(result.item_codes.end(), codes.begin(), codes.end());
    result.item_codes.push_back(place);
  }
  return unique ? table : result;
}

}  // namespace

Matrix FactorizeCooccurrence(const Dataset::Contents& contents, int dim, uint64_t seed) {
  SparseRows information = CountNeighbours(contents);
  ToMutualInformation(&information);
  const Eigen::Index items = information.rows();
  const Eigen::Index width = std::min<Eigen::Index>(dim, items);
  const Eigen::Index sketch = std::min<Eigen::Index>(width + kOversampling, items);

  RowMatrix range(items, sketch);
  Random random(DeriveSeed(seed, {kFactorStream}));
  for (Eigen::Index i = 0; i < range.size(); ++i) range.data()[i] = static_cast<float>(random.Normal());
  for (int i = 0; i <= kPowerIterations; ++i) range = Orthonormal(information * range);

  // The matrix is symmetric: its singular vectors are its eigenvectors, its singular values their absolute values.
  const Eigen::MatrixXf small = range.transpose() * (information * range);
  const Eigen::SelfAdjointEigenSolver<Eigen::MatrixXf> solver((small + small.transpose()) / 2);
  std::vector<Eigen::Index> order(sketch);
  std::iota(order.begin(), order.end(), 0);
  const Eigen::VectorXf values = solver.eigenvalues().cwiseAbs();
  std::stable_sort(order.begin(), order.end(), [&](Eigen::Index a, Eigen::Index b) { return values[a] > values[b]; });
  RowMatrix vectors(items, width);
  for (Eigen::Index i = 0; i < width; ++i) {
    vectors.col(i) = range * (solver.eigenvectors().col(order[i]) * std::sqrt(values[order[i]]));
  }
  NormalizeRows(seed, &vectors);
  return {items, width, std::vector<float>(vectors.data(), vectors.data() + vectors.size())};
}

absl::StatusOr<SidTable> QuantizeResidually(const Matrix& vectors, const QuantizeOptions& options,
                                            std::vector<double>* residual_share) {
  if (options.levels < 1 || options.levels > 7 || options.codes < 2 || options.codes > 65536 ||
      options.iterations < 1) {
    return absl::InvalidArgumentError(
        absl::StrCat("want 1 to 7 levels, 2 to 65536 codes and at least 1 iteration, got ", options.levels, ", ",
                     options.codes, " and ", options.iterations));
  }
  if (vectors.rows < 1 || vectors.columns < 1 ||
      static_cast<int64_t>(vectors.values.size()) != vectors.rows * vectors.columns) {
    return absl::InvalidArgumentError(absl::StrCat("want vectors [", vectors.rows, ", ", vectors.columns, "], got ",
                                                   vectors.values.size(), " values"));
  }
  RowMatrix residuals = Eigen::Map<const RowMatrix>(vectors.values.data(), vectors.rows, vectors.columns);
  const double variance = (residuals.rowwise() - residuals.colwise().mean()).cast<double>().squaredNorm();
  SidTable table;
  table.levels = options.levels;
  table.codes = options.codes;
  table.item_codes.resize(vectors.rows * options.levels);
  RowMatrix centroids;
  RowMatrix before_last;
  for (int level = 0; level < options.levels; ++level) {
    centroids = KMeans(residuals, options, DeriveSeed(options.seed, {kLevelStream, static_cast<uint64_t>(level)}));
    const Assignment assignment = Assign(residuals, centroids);
    if (level + 1 == options.levels) before_last = residuals;
    for (Eigen::Index item = 0; item < residuals.rows(); ++item) {
      table.item_codes[item * options.levels + level] = assignment.code[item];
      residuals.row(item) -= centroids.row(assignment.code[item]);
    }
    if (residual_share != nullptr) {
      residual_share->push_back(variance > 0 ? residuals.cast<double>().squaredNorm() / variance : 0);
    }
  }
  return options.unique_level ? AddUniqueLevel(table, before_last, centroids) : table;
}

SidQuality MeasureSids(const SidTable& table) {
  SidQuality quality;
  quality.items = static_cast<int64_t>(table.item_codes.size()) / table.levels;
  std::map<std::vector<int32_t>, int64_t> items_of;
  std::vector<std::map<int32_t, int64_t>> uses(table.levels);
  for (int64_t item = 0; item < quality.items; ++item) {
    const auto row = table.item_codes.begin() + item * table.levels;
    ++items_of[std::vector<int32_t>(row, row + table.levels)];
    for (int level = 0; level < table.levels; ++level) ++uses[level][row[level]];
  }
  quality.semantic_ids = static_cast<int64_t>(items_of.size());
  for (const auto& [codes, items] : items_of) {
    if (items > 1) quality.colliding_items += items;
    quality.largest_collision = std::max(quality.largest_collision, items);
  }
  for (const auto& level : uses) {
    double entropy = 0;
    for (const auto& [code, items] : level) {
      const double share = static_cast<double>(items) / static_cast<double>(quality.items);
      entropy -= share * std::log2(share);
    }
    quality.used_codes.push_back(static_cast<int>(level.size()));
    quality.entropy_bits.push_back(entropy);
  }
  return quality;
}

absl::StatusOr<SidQuality> AssignSemanticIds(const SemanticIdOptions& options, int64_t log_items,
                                             PreparedEvents* prepared, Matrix* used_vectors) {
  Dataset::Contents& contents = prepared->contents;
  SidTable table;
  std::vector<double> residual_share;
  std::string note;
  if (!options.index.empty()) {
    if (!options.item_vectors.empty()) {
      return absl::InvalidArgumentError("sids.index and sids.item_vectors are both set; set one of them");
    }
    SLUICE_ASSIGN_OR_RETURN(table, ReadSidIndex(options.index, contents.item_names, options.quantize.codes));
    note = "semantic IDs from an index file";
  } else {
    Matrix vectors;
    if (options.item_vectors.empty()) {
      vectors = FactorizeCooccurrence(contents, options.vector_dim, options.quantize.seed);
      note = absl::StrCat("item vectors: factorised co-occurrence of training events, ", vectors.columns, " wide");
    } else {
      SLUICE_ASSIGN_OR_RETURN(const Matrix all, ReadNpyMatrix(options.item_vectors));
      if (all.rows != log_items) {
        return absl::InvalidArgumentError(absl::StrCat("'", options.item_vectors, "' has ", all.rows,
                                                       " rows, want one for each of the ", log_items,
                                                       " items of the events file"));
      }
      vectors.rows = static_cast<int64_t>(prepared->log_item.size());
      vectors.columns = all.columns;
      for (const int32_t row : prepared->log_item) {
        const auto begin = all.values.begin() + row * all.columns;
        vectors.values.insert(vectors.values.end(), begin, begin + all.columns);
      }
      note = absl::StrCat("item vectors: given, ", vectors.columns, " wide");
    }
    SLUICE_ASSIGN_OR_RETURN(table, QuantizeResidually(vectors, options.quantize, &residual_share));
    absl::StrAppend(&note, "; semantic IDs: residual quantised k-means, ", options.quantize.levels, " levels of ",
                    options.quantize.codes, " codes",
                    table.levels > options.quantize.levels ? ", and a level that makes them unique" : "", ", seed ",
                    options.quantize.seed);
    if (used_vectors != nullptr) *used_vectors = std::move(vectors);
  }
  contents.levels = table.levels;
  contents.codes = table.codes;
  contents.item_codes = table.item_codes;
  SidQuality quality = MeasureSids(table);
  quality.residual_share = std::move(residual_share);
  contents.notes.push_back(absl::StrCat(note, "; ", quality.colliding_items, " items share theirs"));
  return quality;
}

}  // namespace sluice
