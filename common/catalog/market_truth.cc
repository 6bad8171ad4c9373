#include "common/catalog/market_truth.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <numeric>

#include "absl/strings/str_cat.h"
#include "common/catalog/npy.h"
#include "common/file/file.h"
#include "common/json/whole_number.h"
#include "common/status/status.h"

namespace sluice {
namespace {

using nlohmann::json;
using nlohmann::ordered_json;

constexpr char kFormat[] = "sluice-market-truth";
constexpr int kFormatVersion = 1;
constexpr char kHead[] = "truth.json";
constexpr char kItemVectors[] = "item_vectors.npy";
constexpr char kUserVectors[] = "user_vectors.npy";
constexpr char kUserRegion[] = "user_region.npy";
constexpr char kItemCell[] = "item_cell.npy";
constexpr char kLogPopularity[] = "log_popularity.npy";
constexpr int64_t kMaxHeadBytes = int64_t{1} << 16;
constexpr int64_t kMaxArrayBytes = int64_t{64} << 30;
constexpr int kMaxDim = 4096;
constexpr int64_t kMaxCount = (int64_t{1} << 31) - 2;

absl::Status CheckSize(absl::string_view what, size_t got, int64_t want) {
  if (static_cast<int64_t>(got) == want) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("truth of a market: want ", want, " numbers of ", what, ", got ", got));
}

absl::Status CheckFinite(absl::string_view what, const std::vector<float>& values) {
  const auto bad = std::find_if(values.begin(), values.end(), [](float value) { return !std::isfinite(value); });
  if (bad == values.end()) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("truth of a market: number ", bad - values.begin(), " of ", what, " is not finite"));
}

absl::Status CheckRange(absl::string_view what, const std::vector<int32_t>& values, int64_t bound) {
  const auto bad =
      std::find_if(values.begin(), values.end(), [bound](int32_t value) { return value < 0 || value >= bound; });
  if (bad == values.end()) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("truth of a market: ", what, " ", bad - values.begin(), " is ", *bad, ", want 0 to ", bound - 1));
}

absl::Status Check(const MarketTruth::Contents& contents) {
  const int64_t items = static_cast<int64_t>(contents.item_cell.size());
  const int64_t users = static_cast<int64_t>(contents.user_region.size());
  if (items < 1 || users < 1 || items > kMaxCount || users > kMaxCount || contents.dim < 1 || contents.dim > kMaxDim ||
      contents.regions < 1 || contents.regions > kMaxCount || contents.cells < 1 || contents.cells > items) {
    return absl::InvalidArgumentError(absl::StrCat("truth of a market: want users and items, 1 to ", kMaxDim,
                                                   " dimensions, regions, and cells that have items; got ", users,
                                                   " users, ", items, " items, ", contents.dim, " dimensions, ",
                                                   contents.regions, " regions, ", contents.cells, " cells"));
  }
  SLUICE_RETURN_IF_ERROR(CheckSize("item vectors", contents.item_vectors.size(), items * contents.dim));
  SLUICE_RETURN_IF_ERROR(CheckSize("user vectors", contents.user_vectors.size(), users * contents.dim));
  SLUICE_RETURN_IF_ERROR(CheckSize("log popularities", contents.log_popularity.size(), items));
  SLUICE_RETURN_IF_ERROR(CheckFinite("the item vectors", contents.item_vectors));
  SLUICE_RETURN_IF_ERROR(CheckFinite("the user vectors", contents.user_vectors));
  SLUICE_RETURN_IF_ERROR(CheckFinite("the log popularities", contents.log_popularity));
  SLUICE_RETURN_IF_ERROR(CheckRange("the region of user", contents.user_region, contents.regions));
  return CheckRange("the cell of item", contents.item_cell, contents.cells);
}

template <typename T>
absl::StatusOr<std::vector<T>> ReadArray(const std::string& folder, const char* name) {
  const std::string path = JoinPath(folder, name);
  SLUICE_ASSIGN_OR_RETURN(std::string content, ReadFile(path, kMaxArrayBytes));
  SLUICE_ASSIGN_OR_RETURN(const NpyArray array, ParseNpy(std::move(content), path));
  return NpyValues<T>(array, array.shape.size(), path);
}

}  // namespace

absl::StatusOr<std::shared_ptr<const MarketTruth>> MarketTruth::Create(Contents contents) {
  SLUICE_RETURN_IF_ERROR(Check(contents));
  std::shared_ptr<MarketTruth> truth(new MarketTruth);
  const int64_t items = truth->num_items_ = static_cast<int64_t>(contents.item_cell.size());
  const int64_t dim = contents.dim;

  std::vector<double> sums(static_cast<size_t>(contents.cells * dim), 0.0);
  std::vector<int64_t> members(static_cast<size_t>(contents.cells), 0);
  for (int64_t item = 0; item < items; ++item) {
    const int64_t cell = contents.item_cell[item];
    ++members[cell];
    for (int64_t d = 0; d < dim; ++d) sums[cell * dim + d] += contents.item_vectors[item * dim + d];
  }
  truth->cell_vectors_.resize(sums.size());
  for (int64_t cell = 0; cell < contents.cells; ++cell) {
    if (members[cell] == 0) {
      return absl::InvalidArgumentError(absl::StrCat("truth of a market: cell ", cell, " has no item"));
    }
    for (int64_t d = 0; d < dim; ++d) {
      truth->cell_vectors_[cell * dim + d] =
          static_cast<float>(sums[cell * dim + d] / static_cast<double>(members[cell]));
    }
  }

  double mean = 0, variance = 0;
  for (const float value : contents.log_popularity) mean += value;
  mean /= static_cast<double>(items);
  for (const float value : contents.log_popularity) variance += (value - mean) * (value - mean);
  const double deviation = std::sqrt(variance / static_cast<double>(items));
  // Below this, all that differs is the rounding of a mean of equal numbers.
  const bool alike = deviation < 1e-6;
  truth->standard_popularity_.reserve(contents.log_popularity.size());
  for (const float value : contents.log_popularity) {
    truth->standard_popularity_.push_back(alike ? 0 : (value - mean) / deviation);
  }
  truth->contents_ = std::move(contents);
  return truth;
}

absl::StatusOr<std::shared_ptr<const MarketTruth>> MarketTruth::Load(const std::string& folder) {
  const std::string path = JoinPath(folder, kHead);
  SLUICE_ASSIGN_OR_RETURN(const std::string text, ReadFile(path, kMaxHeadBytes));
  Contents contents;
  try {
    const json root = json::parse(text);
    if (root.at("format").get<std::string>() != kFormat) {
      return absl::InvalidArgumentError(absl::StrCat("'", path, "' is not the truth of a market"));
    }
    const auto read = [&root, &path](const char* key, auto* number) {
      return Annotate(ReadWholeNumber(root.at(key), key, number), absl::StrCat("'", path, "' is damaged"));
    };
    int64_t version = 0;
    SLUICE_RETURN_IF_ERROR(read("format_version", &version));
    if (version != kFormatVersion) {
      return absl::FailedPreconditionError(absl::StrCat("'", path, "' has format version ", version,
                                                        ", this build reads ", kFormatVersion,
                                                        "; prepare the market again with this build"));
    }
    SLUICE_RETURN_IF_ERROR(read("dim", &contents.dim));
    SLUICE_RETURN_IF_ERROR(read("regions", &contents.regions));
    SLUICE_RETURN_IF_ERROR(read("cells", &contents.cells));
    SLUICE_RETURN_IF_ERROR(read("seed", &contents.seed));
  } catch (const json::exception& error) {
    return absl::DataLossError(absl::StrCat("'", path, "' is damaged (", error.what(), ")"));
  }
  SLUICE_ASSIGN_OR_RETURN(contents.item_vectors, ReadArray<float>(folder, kItemVectors));
  SLUICE_ASSIGN_OR_RETURN(contents.user_vectors, ReadArray<float>(folder, kUserVectors));
  SLUICE_ASSIGN_OR_RETURN(contents.user_region, ReadArray<int32_t>(folder, kUserRegion));
  SLUICE_ASSIGN_OR_RETURN(contents.item_cell, ReadArray<int32_t>(folder, kItemCell));
  SLUICE_ASSIGN_OR_RETURN(contents.log_popularity, ReadArray<float>(folder, kLogPopularity));
  return Create(std::move(contents));
}

absl::Status MarketTruth::Write(const std::string& folder) const {
  SLUICE_RETURN_IF_ERROR(MakeDirectories(folder));
  const ordered_json head = {
      {"format", kFormat},    {"format_version", kFormatVersion}, {"users", num_users()},     {"items", num_items()},
      {"dim", contents_.dim}, {"regions", contents_.regions},     {"cells", contents_.cells}, {"seed", contents_.seed}};
  SLUICE_RETURN_IF_ERROR(WriteFileAtomically(JoinPath(folder, kHead), head.dump(2) + "\n"));
  SLUICE_RETURN_IF_ERROR(
      WriteNpy(JoinPath(folder, kItemVectors), {num_items(), contents_.dim}, contents_.item_vectors));
  SLUICE_RETURN_IF_ERROR(
      WriteNpy(JoinPath(folder, kUserVectors), {num_users(), contents_.dim}, contents_.user_vectors));
  SLUICE_RETURN_IF_ERROR(WriteNpy(JoinPath(folder, kUserRegion), {num_users()}, contents_.user_region));
  SLUICE_RETURN_IF_ERROR(WriteNpy(JoinPath(folder, kItemCell), {num_items()}, contents_.item_cell));
  return WriteNpy(JoinPath(folder, kLogPopularity), {num_items()}, contents_.log_popularity);
}

double MarketTruth::Product(int32_t user, const float* vector) const {
  const float* taste = contents_.user_vectors.data() + static_cast<int64_t>(user) * contents_.dim;
  double sum = 0;
  for (int d = 0; d < contents_.dim; ++d) sum += static_cast<double>(taste[d]) * vector[d];
  return sum;
}

double MarketTruth::Utility(int32_t user, int32_t item) const {
  return Product(user, contents_.item_vectors.data() + static_cast<int64_t>(item) * contents_.dim);
}

double MarketTruth::CellUtility(int32_t user, int32_t item) const {
  return Product(user, cell_vectors_.data() + static_cast<int64_t>(contents_.item_cell[item]) * contents_.dim);
}

MarketTruth::ListValue MarketTruth::ValueOf(int32_t user, absl::Span<const int32_t> items) const {
  std::vector<double> utilities(static_cast<size_t>(num_items_));
  for (int64_t item = 0; item < num_items_; ++item) utilities[item] = Utility(user, static_cast<int32_t>(item));
  const double largest = *std::max_element(utilities.begin(), utilities.end());
  double total = 0;
  for (const double utility : utilities) total += std::exp(utility - largest);
  ListValue value;
  for (const int32_t item : items) {
    value.mass += std::exp(utilities[item] - largest) / total;
    value.utility += utilities[item] / static_cast<double>(items.size());
  }
  return value;
}

std::vector<int32_t> MarketTruth::TopItems(int32_t user, int count, double popularity_weight) const {
  std::vector<double> scores(static_cast<size_t>(num_items_));
  for (int32_t item = 0; item < num_items_; ++item) {
    scores[item] = Utility(user, item) + popularity_weight * LogPopularity(item);
  }
  std::vector<int32_t> order(scores.size());
  std::iota(order.begin(), order.end(), 0);
  const auto end = order.begin() + std::min<int64_t>(count, num_items_);
  std::partial_sort(order.begin(), end, order.end(),
                    [&scores](int32_t a, int32_t b) { return scores[a] != scores[b] ? scores[a] > scores[b] : a < b; });
  order.erase(end, order.end());
  return order;
}

}  // namespace sluice
