#include "common/market/market.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/random/random.h"
#include "common/status/status.h"

namespace sluice {
namespace {

// Labels of the seeds derived here; a new stream takes a new number.
enum MarketStream : uint64_t {
  kRegionStream = 1,
  kCellStream = 2,
  kItemStream = 3,
  kCodeStream = 4,
  kPopularityStream = 5,
  kUserStream = 6,
  kChoiceStream = 7,
  kNoiseStream = 8,
};

constexpr int64_t kMaxVectorNumbers = int64_t{1} << 32;
// Users between two questions whether to go on.
constexpr int64_t kUsersAtOnce = 1024;

absl::Status CheckAtLeast(absl::string_view option, int64_t value, int64_t least) {
  if (value >= least) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("market.", option, ": want at least ", least, ", got ", value));
}

absl::Status CheckWeight(absl::string_view option, double value) {
  if (std::isfinite(value) && value >= 0) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("market.", option, ": want a number of at least 0, got ", value));
}

// Scales to `length`; false if there is no direction to keep.
bool Scale(double length, std::vector<double>* vector) {
  double square = 0;
  for (const double value : *vector) square += value * value;
  if (square == 0) return false;
  for (double& value : *vector) value *= length / std::sqrt(square);
  return true;
}

std::vector<double> Direction(Random& random, int dim) {
  std::vector<double> vector(static_cast<size_t>(dim));
  do {
    for (double& value : vector) value = random.Normal();
  } while (!Scale(1, &vector));
  return vector;
}

// sum += weight * vector
template <typename T>
void Add(double weight, absl::Span<const T> vector, std::vector<double>* sum) {
  for (size_t d = 0; d < sum->size(); ++d) (*sum)[d] += weight * vector[d];
}

}  // namespace

absl::Status ValidateMarket(const MarketOptions& options) {
  SLUICE_RETURN_IF_ERROR(CheckAtLeast("regions", options.regions, 2));
  SLUICE_RETURN_IF_ERROR(CheckAtLeast("cells", options.cells, 1));
  SLUICE_RETURN_IF_ERROR(CheckAtLeast("items_per_cell", options.items_per_cell, 1));
  SLUICE_RETURN_IF_ERROR(CheckAtLeast("dim", options.dim, 2));
  SLUICE_RETURN_IF_ERROR(CheckAtLeast("slate", options.slate, 1));
  SLUICE_RETURN_IF_ERROR(CheckAtLeast("history", options.history, 1));
  SLUICE_RETURN_IF_ERROR(CheckAtLeast("sft_users", options.sft_users, 1));
  SLUICE_RETURN_IF_ERROR(CheckAtLeast("rl_users", options.rl_users, 0));
  SLUICE_RETURN_IF_ERROR(CheckAtLeast("heldout_users", options.heldout_users, 1));
  SLUICE_RETURN_IF_ERROR(CheckWeight("cell_weight", options.cell_weight));
  SLUICE_RETURN_IF_ERROR(CheckWeight("item_weight", options.item_weight));
  SLUICE_RETURN_IF_ERROR(CheckWeight("popularity_exponent", options.popularity_exponent));
  SLUICE_RETURN_IF_ERROR(CheckWeight("utility_scale", options.utility_scale));
  SLUICE_RETURN_IF_ERROR(CheckWeight("second_weight", options.second_weight));
  SLUICE_RETURN_IF_ERROR(CheckWeight("own_weight", options.own_weight));
  SLUICE_RETURN_IF_ERROR(CheckWeight("position_bias", options.position_bias));
  if (options.leaf_codes < options.items_per_cell) {
    return absl::InvalidArgumentError(absl::StrCat("market.leaf_codes: the ", options.items_per_cell,
                                                   " items of a cell need as many codes, got ", options.leaf_codes,
                                                   "; raise leaf_codes or lower items_per_cell"));
  }
  // In double first: the product of three counts may not fit.
  const double items = static_cast<double>(options.regions) * options.cells * options.items_per_cell;
  if (items > static_cast<double>(kMaxMarketItems)) {
    return absl::InvalidArgumentError(
        absl::StrCat("market: regions * cells * items_per_cell = ", items, " items, want at most ", kMaxMarketItems));
  }
  if (options.num_users() > kMaxMarketUsers) {
    return absl::InvalidArgumentError(absl::StrCat(
        "market: sft_users + rl_users + heldout_users = ", options.num_users(), ", want at most ", kMaxMarketUsers));
  }
  if ((options.num_items() + options.num_users()) * options.dim > kMaxVectorNumbers) {
    return absl::InvalidArgumentError(
        absl::StrCat("market: (items + users) * dim = ", (options.num_items() + options.num_users()) * options.dim,
                     " numbers of vectors, want at most ", kMaxVectorNumbers));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<const Market>> Market::Create(const MarketOptions& options, uint64_t seed) {
  SLUICE_RETURN_IF_ERROR(ValidateMarket(options));
  return std::unique_ptr<const Market>(new Market(options, seed));
}

Market::Market(const MarketOptions& options, uint64_t seed) : options_(options), seed_(seed) {
  const int dim = options_.dim;
  const int64_t items = options_.num_items();
  for (int region = 0; region < options_.regions; ++region) {
    Random random(DeriveSeed(seed_, {kRegionStream}), static_cast<uint64_t>(region));
    const std::vector<double> direction = Direction(random, dim);
    region_vectors_.insert(region_vectors_.end(), direction.begin(), direction.end());
  }

  item_vectors_.reserve(static_cast<size_t>(items * dim));
  item_codes_.reserve(static_cast<size_t>(items * kLevels));
  for (int64_t cell = 0; cell < int64_t{options_.regions} * options_.cells; ++cell) {
    Random random(DeriveSeed(seed_, {kCellStream}), static_cast<uint64_t>(cell));
    const std::vector<double> cell_direction = Direction(random, dim);
    const int64_t region = cell / options_.cells;
    const uint64_t code_seed = DeriveSeed(seed_, {kCodeStream, static_cast<uint64_t>(cell)});
    for (int j = 0; j < options_.items_per_cell; ++j) {
      Random own(DeriveSeed(seed_, {kItemStream}), static_cast<uint64_t>(cell * options_.items_per_cell + j));
      std::vector<double> vector(static_cast<size_t>(dim), 0.0);
      do {
        std::fill(vector.begin(), vector.end(), 0.0);
        Add(1, absl::MakeConstSpan(region_vectors_).subspan(region * dim, dim), &vector);
        Add(options_.cell_weight, absl::MakeConstSpan(cell_direction), &vector);
        Add(options_.item_weight, absl::MakeConstSpan(Direction(own, dim)), &vector);
      } while (!Scale(1, &vector));
      item_vectors_.insert(item_vectors_.end(), vector.begin(), vector.end());
      item_codes_.push_back(static_cast<int32_t>(region));
      item_codes_.push_back(static_cast<int32_t>(cell % options_.cells));
      item_codes_.push_back(static_cast<int32_t>(
          PermutedIndex(code_seed, static_cast<uint64_t>(options_.leaf_codes), static_cast<uint64_t>(j))));
    }
  }

  popularity_.resize(static_cast<size_t>(items));
  double total = 0;
  for (int64_t item = 0; item < items; ++item) {
    const uint64_t rank = PermutedIndex(DeriveSeed(seed_, {kPopularityStream}), static_cast<uint64_t>(items),
                                        static_cast<uint64_t>(item));
    total += popularity_[item] = std::pow(static_cast<double>(rank + 1), -options_.popularity_exponent);
  }
  for (double& share : popularity_) share /= total;
  exposure_ = std::make_unique<const PopularitySampler>(popularity_);
  if (options_.position_bias > 0) {
    for (int place = 0; place < options_.slate; ++place) {
      log_place_weight_.push_back(-options_.position_bias * std::log(place + 1.0));
    }
  }
}

int Market::codes() const { return std::max({options_.regions, options_.cells, options_.leaf_codes}); }

absl::Span<const float> Market::ItemVector(int32_t item) const {
  return absl::MakeConstSpan(item_vectors_).subspan(static_cast<size_t>(item) * options_.dim, options_.dim);
}

Market::User Market::MakeUser(int64_t user) const {
  Random random(DeriveSeed(seed_, {kUserStream}), static_cast<uint64_t>(user));
  const uint64_t regions = static_cast<uint64_t>(options_.regions);
  const size_t dim = static_cast<size_t>(options_.dim);
  User made;
  std::vector<double> vector(dim);
  do {
    made.region = static_cast<int32_t>(random.Below(regions));
    made.second_region = static_cast<int32_t>(random.Below(regions));
    std::fill(vector.begin(), vector.end(), 0.0);
    Add(1, absl::MakeConstSpan(region_vectors_).subspan(made.region * dim, dim), &vector);
    Add(options_.second_weight, absl::MakeConstSpan(region_vectors_).subspan(made.second_region * dim, dim), &vector);
    Add(options_.own_weight, absl::MakeConstSpan(Direction(random, options_.dim)), &vector);
  } while (!Scale(options_.utility_scale, &vector));
  made.vector.assign(vector.begin(), vector.end());
  return made;
}

size_t Market::ChooseFrom(absl::Span<const int32_t> slate, absl::Span<const float> taste, Random& random) const {
  std::vector<double> weight(slate.size());
  for (size_t place = 0; place < slate.size(); ++place) {
    const absl::Span<const float> item = ItemVector(slate[place]);
    double utility = place < log_place_weight_.size() ? log_place_weight_[place] : 0;
    for (size_t d = 0; d < taste.size(); ++d) utility += static_cast<double>(taste[d]) * item[d];
    weight[place] = utility;
  }
  const double largest = *std::max_element(weight.begin(), weight.end());
  double total = 0;
  for (double& value : weight) total += value = std::exp(value - largest);
  double left = random.Uniform() * total;
  for (size_t place = 0; place + 1 < weight.size(); ++place) {
    left -= weight[place];
    if (left < 0) return place;
  }
  return weight.size() - 1;
}

std::vector<int32_t> Market::Choices(int64_t user, const User& made, int count) const {
  Random random(DeriveSeed(seed_, {kChoiceStream}), static_cast<uint64_t>(user));
  std::vector<int32_t> chosen;
  std::vector<int32_t> slate(static_cast<size_t>(options_.slate));
  for (int i = 0; i < count; ++i) {
    for (int32_t& item : slate) item = exposure_->Draw(random);
    if (!log_place_weight_.empty()) {
      std::sort(slate.begin(), slate.end(), [this](int32_t a, int32_t b) {
        return popularity_[a] != popularity_[b] ? popularity_[a] > popularity_[b] : a < b;
      });
    }
    chosen.push_back(slate[ChooseFrom(slate, made.vector, random)]);
  }
  return chosen;
}

absl::StatusOr<Dataset::Contents> GenerateMarket(const MarketOptions& options, uint64_t seed, const std::string& name,
                                                 int max_history, const std::function<absl::Status()>& keep_going) {
  SLUICE_ASSIGN_OR_RETURN(const std::unique_ptr<const Market> market, Market::Create(options, seed));
  Dataset::Contents contents;
  contents.name = name;
  contents.levels = Market::kLevels;
  contents.codes = market->codes();
  contents.item_codes = market->item_codes();
  contents.max_history = max_history;
  MarketTruth::Contents truth;
  truth.dim = options.dim;
  truth.regions = options.regions;
  truth.cells = options.regions * options.cells;
  truth.seed = DeriveSeed(seed, {kNoiseStream});
  truth.item_vectors = market->item_vectors();
  for (int32_t item = 0; item < market->num_items(); ++item) {
    contents.item_names.push_back(absl::StrCat(item));
    truth.item_cell.push_back(market->CellOf(item));
    truth.log_popularity.push_back(static_cast<float>(std::log(market->popularity(item))));
  }

  struct Part {
    const char* prefix;
    int64_t users;
    std::vector<SplitLabel> labels;  // after the history
    SplitLabel history;
  };
  const Part parts[] = {
      {"sft-", options.sft_users, {SplitLabel::kTrain}, SplitLabel::kTrain},
      {"rl-", options.rl_users, {SplitLabel::kReserved}, SplitLabel::kContext},
      {"heldout-", options.heldout_users, {SplitLabel::kValidation, SplitLabel::kTest}, SplitLabel::kContext},
  };
  contents.first_event.push_back(0);
  truth.user_vectors.reserve(static_cast<size_t>(options.num_users() * options.dim));
  int64_t user = 0;
  for (const Part& part : parts) {
    for (int64_t i = 0; i < part.users; ++i, ++user) {
      if (user % kUsersAtOnce == 0) SLUICE_RETURN_IF_ERROR(keep_going());
      const Market::User made = market->MakeUser(user);
      const std::vector<int32_t> chosen =
          market->Choices(user, made, options.history + static_cast<int>(part.labels.size()));
      contents.user_names.push_back(absl::StrCat(part.prefix, i));
      contents.event_item.insert(contents.event_item.end(), chosen.begin(), chosen.end());
      contents.event_split.insert(contents.event_split.end(), static_cast<size_t>(options.history), part.history);
      contents.event_split.insert(contents.event_split.end(), part.labels.begin(), part.labels.end());
      contents.first_event.push_back(static_cast<int64_t>(contents.event_item.size()));
      truth.user_vectors.insert(truth.user_vectors.end(), made.vector.begin(), made.vector.end());
      truth.user_region.push_back(made.region);
    }
  }
  contents.notes.push_back(absl::StrCat(
      "a generated market, not real events: ", options.regions, " regions of ", options.cells, " cells of ",
      options.items_per_cell, " items, popularity rank^-", options.popularity_exponent, ", slates of ", options.slate,
      ", position bias ", options.position_bias, ", seed ", seed, "; truth/ holds what is true of it"));
  contents.notes.push_back(absl::StrCat("split by users: ", options.sft_users, " for sft, ", options.rl_users,
                                        " reserved for rl, ", options.heldout_users,
                                        " held out with a validation and a test target"));
  SLUICE_ASSIGN_OR_RETURN(contents.truth, MarketTruth::Create(std::move(truth)));
  return contents;
}

}  // namespace sluice
