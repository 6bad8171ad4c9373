#include "reward_server/ranker_mapping/query_encoder.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/catalog/npy.h"
#include "common/file/file.h"
#include "common/status/status.h"

namespace sluice::reward {
namespace {

// Lines of one message about a model that does not fit.
constexpr size_t kMaxMismatches = 20;
// Names of tensors in such a line.
constexpr size_t kMaxNames = 10;

absl::Status Wrong(const MappedInput& input, absl::string_view key, const std::string& message) {
  return absl::InvalidArgumentError(absl::StrCat(input.place, ".", key, ": ", message));
}

bool IsOfItems(const MappedInput& input) {
  return input.from == InputSource::kItem || input.from == InputSource::kHistory;
}

bool HasHistoryDimension(const MappedInput& input) {
  return input.from == InputSource::kHistory || input.from == InputSource::kHistoryMask;
}

template <typename T>
absl::Status Convert(const MappedInput& input, const NpyArray& array, std::string* raw) {
  SLUICE_ASSIGN_OR_RETURN(const std::vector<T> values, NpyValues<T>(array, array.shape.size(), input.column));
  for (size_t i = 0; i < values.size(); ++i) {
    bool fits = false;
    if constexpr (std::is_integral_v<T>) {
      fits = FitsInteger(input.type, static_cast<int64_t>(values[i]));
    } else {
      fits = Fits(input.type, values[i]);
    }
    if (!fits) {
      return Wrong(input, "column",
                   absl::StrCat("'", input.column, "' holds ", values[i], ", which is no ", TensorTypeName(input.type),
                                "; mend the file or the type"));
    }
    if constexpr (std::is_integral_v<T>) {
      AppendInteger(input.type, static_cast<int64_t>(values[i]), raw);
    } else {
      AppendNumber(input.type, values[i], raw);
    }
  }
  return absl::OkStatus();
}

absl::Status ConvertAny(const MappedInput& input, const NpyArray& array, std::string* raw) {
  if (array.type == NpyType<uint8_t>()) return Convert<uint8_t>(input, array, raw);
  if (array.type == NpyType<int32_t>()) return Convert<int32_t>(input, array, raw);
  if (array.type == NpyType<int64_t>()) return Convert<int64_t>(input, array, raw);
  if (array.type == NpyType<float>()) return Convert<float>(input, array, raw);
  if (array.type == NpyType<double>()) return Convert<double>(input, array, raw);
  return Wrong(input, "column",
               absl::StrCat("'", input.column, "' has elements of type '", array.type,
                            "'; save it as uint8, int32, int64, float32 or float64"));
}

// Whether a size that a model promises takes one of ours; -1 is free on either side.
bool SizesMeet(int64_t ours, int64_t theirs) { return theirs < 0 || ours == theirs; }

}  // namespace

absl::StatusOr<QueryEncoder> QueryEncoder::Create(const RankerMapping& mapping,
                                                  std::shared_ptr<const Dataset> dataset) {
  QueryEncoder encoder;
  encoder.mapping_ = mapping;
  encoder.dataset_ = std::move(dataset);
  std::string digests;
  for (const MappedInput& input : mapping.inputs) {
    Column& column = encoder.columns_.emplace_back();
    SLUICE_RETURN_IF_ERROR(encoder.Load(input, &column));
    if (column.width > 0) absl::StrAppend(&digests, input.name, " ", column.width, " ", Sha256(column.raw), "\n");
  }
  encoder.digest_ = Sha256(digests);
  return encoder;
}

absl::Status QueryEncoder::Load(const MappedInput& input, Column* column) const {
  const int64_t rows = IsOfItems(input) ? dataset_->num_items() : dataset_->num_users();
  column->row_bytes = ElementBytes(input.type);
  if (input.type == TensorType::kBytes) {
    for (int64_t i = 0; i < rows; ++i) {
      const std::string& name = IsOfItems(input) ? dataset_->item_name(static_cast<int32_t>(i))
                                                 : dataset_->user_name(static_cast<int32_t>(i));
      column->row_bytes = std::max(column->row_bytes, static_cast<int64_t>(name.size()));
    }
    column->row_bytes += 4;  // the length before it
    return absl::OkStatus();
  }
  if (input.column.empty()) {
    const bool numbers = IsOfItems(input) || input.from == InputSource::kUser;
    for (const int64_t end : {input.offset, input.offset + rows - 1}) {
      if (numbers && !FitsInteger(input.type, end)) {
        return Wrong(
            input, "type",
            absl::StrCat(TensorTypeName(input.type), " does not hold the number ", end, ", and the ", "data set has ",
                         rows, IsOfItems(input) ? " items" : " users", "; want a wider type, or another offset"));
      }
    }
    return absl::OkStatus();
  }
  absl::StatusOr<std::string> content = ReadFile(input.column);
  if (!content.ok()) return Annotate(content.status(), absl::StrCat(input.place, ".column"));
  absl::StatusOr<NpyArray> array = ParseNpy(*std::move(content), input.column);
  if (!array.ok()) return Annotate(array.status(), absl::StrCat(input.place, ".column"));
  const size_t dimensions = array->shape.size();
  if (dimensions < 1 || dimensions > 2 || array->shape[0] != rows || (dimensions == 2 && array->shape[1] < 1)) {
    return Wrong(
        input, "column",
        absl::StrCat("want an array [", rows, "] or [", rows, ", n], a row ", IsOfItems(input) ? "an item" : "a user",
                     " of the data set, got ", ShapeText(array->shape)));
  }
  column->width = dimensions == 2 ? array->shape[1] : 1;
  column->flat = dimensions == 1;
  column->row_bytes = column->width * ElementBytes(input.type);
  return ConvertAny(input, *array, &column->raw);
}

int64_t QueryEncoder::Bytes(int64_t users, int64_t pairs, int64_t history) const {
  int64_t bytes = 0;
  for (size_t i = 0; i < mapping_.inputs.size(); ++i) {
    const MappedInput& input = mapping_.inputs[i];
    const int64_t rows = input.from == InputSource::kItem ? pairs : users;
    const int64_t length = input.length > 0 ? input.length : history;
    bytes += rows * columns_[i].row_bytes * (HasHistoryDimension(input) ? length : 1);
  }
  return bytes;
}

absl::Status QueryEncoder::CheckQuery(const ItemQuery& query) const {
  if (query.user >= 0) return absl::OkStatus();
  for (const MappedInput& input : mapping_.inputs) {
    if (input.from != InputSource::kUser || input.type == TensorType::kBytes || input.unknown) continue;
    if (!input.column.empty() || !FitsInteger(input.type, -1)) {
      return absl::InvalidArgumentError(absl::StrCat("ranker ", mapping_.name, ": the user is unknown, and ",
                                                     input.place, " has no value for that; give it unknown"));
    }
  }
  return absl::OkStatus();
}

std::vector<ModelCall> QueryEncoder::Plan(absl::Span<const ItemQuery> queries,
                                          std::vector<absl::Status>* statuses) const {
  const bool users = mapping_.layout == Layout::kUsers;
  // The call with one more slice, if that is within the limits.
  const auto with = [&](const ModelCall& call, const QuerySlice& slice) -> std::optional<ModelCall> {
    ModelCall next;
    const int64_t count = static_cast<int64_t>(slice.count);
    const int64_t rows = static_cast<int64_t>(call.slices.size()) + 1;
    next.width = std::max(call.width, count);
    next.pairs = users ? rows * next.width : call.pairs + count;
    next.history = std::max(call.history, static_cast<int64_t>(queries[slice.query].history.size()));
    if (next.pairs > mapping_.max_pairs) return std::nullopt;
    if (Bytes(users ? rows : next.pairs, next.pairs, next.history) > kMaxCallBytes) return std::nullopt;
    return next;
  };

  std::vector<ModelCall> calls;
  statuses->assign(queries.size(), absl::OkStatus());
  ModelCall call;
  const auto close = [&] {
    if (!call.slices.empty()) calls.push_back(std::move(call));
    call = ModelCall();
  };
  for (size_t q = 0; q < queries.size(); ++q) {
    (*statuses)[q] = CheckQuery(queries[q]);
    if (!(*statuses)[q].ok()) continue;
    size_t first = 0;
    while (first < queries[q].items.size()) {
      QuerySlice slice = {q, first, queries[q].items.size() - first};
      std::optional<ModelCall> next = with(call, slice);
      if (!next && !call.slices.empty()) {
        close();
        next = with(call, slice);
      }
      if (!next) {
        // Too large for any call: as much of it as fits.
        size_t low = 0, high = slice.count;
        while (low + 1 < high) {
          slice.count = low + (high - low) / 2;
          (with(call, slice) ? low : high) = slice.count;
        }
        slice.count = low;
        if (low == 0) {
          (*statuses)[q] = absl::InvalidArgumentError(
              absl::StrCat("ranker ", mapping_.name, ": one item with a history of ", queries[q].history.size(),
                           " needs more than the ", kMaxCallBytes, " bytes of a call; give the history a length"));
          break;
        }
        next = with(call, slice);
      }
      next->slices = std::move(call.slices);
      next->slices.push_back(slice);
      call = *std::move(next);
      first += slice.count;
    }
  }
  close();
  return calls;
}

// rows and width: of the call; width is 0 for what has no dimension of items.
std::vector<int64_t> QueryEncoder::Shape(size_t i, int64_t rows, int64_t width, int64_t history) const {
  const MappedInput& input = mapping_.inputs[i];
  std::vector<int64_t> shape = {rows};
  if (input.from == InputSource::kItem && mapping_.layout == Layout::kUsers) shape.push_back(width);
  if (HasHistoryDimension(input)) shape.push_back(input.length > 0 ? input.length : history);
  if (columns_[i].width > 0 && !columns_[i].flat) shape.push_back(columns_[i].width);
  if (input.last_dimension) shape.push_back(1);
  return shape;
}

void QueryEncoder::AppendEntity(size_t i, int32_t number, std::string* raw) const {
  const MappedInput& input = mapping_.inputs[i];
  const Column& column = columns_[i];
  const bool known = number >= 0;
  if (input.type == TensorType::kBytes) {
    if (!known) return AppendText("", raw);
    return AppendText(IsOfItems(input) ? dataset_->item_name(number) : dataset_->user_name(number), raw);
  }
  const double absent = input.from == InputSource::kUser ? input.unknown.value_or(-1) : input.pad;
  if (column.width > 0) {
    if (known) {
      raw->append(column.raw, static_cast<size_t>(number * column.row_bytes), static_cast<size_t>(column.row_bytes));
    } else {
      for (int64_t k = 0; k < column.width; ++k) AppendNumber(input.type, absent, raw);
    }
    return;
  }
  if (known) return AppendInteger(input.type, number + input.offset, raw);
  AppendNumber(input.type, absent, raw);
}

void QueryEncoder::AppendUserSide(size_t i, const ItemQuery& query, int64_t history, std::string* raw) const {
  const MappedInput& input = mapping_.inputs[i];
  const int64_t length = input.length > 0 ? input.length : history;
  const int64_t held = std::min(length, static_cast<int64_t>(query.history.size()));
  switch (input.from) {
    case InputSource::kUser:
      return AppendEntity(i, query.user, raw);
    case InputSource::kHistoryLength: {
      // As many as the input of kHistory holds, whose length is its own.
      int64_t most = history;
      for (const MappedInput& other : mapping_.inputs) {
        if (other.from == InputSource::kHistory && other.length > 0) most = other.length;
      }
      return AppendInteger(input.type, std::min(most, static_cast<int64_t>(query.history.size())), raw);
    }
    case InputSource::kConstant:
      return AppendNumber(input.type, input.value, raw);
    default:
      break;
  }
  const auto begin = query.history.end() - held;
  const auto append = [&](int32_t item) {
    if (input.from == InputSource::kHistory) return AppendEntity(i, item, raw);
    AppendInteger(input.type, item >= 0 ? 1 : 0, raw);
  };
  for (int64_t k = held; input.pad_left && k < length; ++k) append(-1);
  for (auto item = begin; item != query.history.end(); ++item) append(*item);
  for (int64_t k = held; !input.pad_left && k < length; ++k) append(-1);
}

std::vector<Tensor> QueryEncoder::Encode(absl::Span<const ItemQuery> queries, const ModelCall& call) const {
  const bool users = mapping_.layout == Layout::kUsers;
  const int64_t rows = users ? static_cast<int64_t>(call.slices.size()) : call.pairs;
  std::vector<Tensor> tensors;
  std::string row;
  for (size_t i = 0; i < mapping_.inputs.size(); ++i) {
    const MappedInput& input = mapping_.inputs[i];
    Tensor& tensor = tensors.emplace_back();
    tensor.name = input.name;
    tensor.type = input.type;
    tensor.shape = Shape(i, rows, call.width, call.history);
    for (const QuerySlice& slice : call.slices) {
      const ItemQuery& query = queries[slice.query];
      if (input.from == InputSource::kItem) {
        for (size_t k = 0; k < slice.count; ++k) AppendEntity(i, query.items[slice.first + k], &tensor.raw);
        for (int64_t k = static_cast<int64_t>(slice.count); users && k < call.width; ++k)
          AppendEntity(i, -1, &tensor.raw);
        continue;
      }
      row.clear();
      AppendUserSide(i, query, call.history, &row);
      for (size_t k = 0; k < (users ? 1 : slice.count); ++k) tensor.raw += row;
    }
  }
  return tensors;
}

absl::StatusOr<std::vector<float>> QueryEncoder::Decode(const MappedOutput& output, const Tensor& tensor,
                                                        const ModelCall& call) const {
  const bool users = mapping_.layout == Layout::kUsers;
  const auto wrong = [&](const std::string& what) {
    return absl::DataLossError(absl::StrCat("ranker ", mapping_.name, ": output '", output.output, "' ", what));
  };
  std::vector<int64_t> want = {call.pairs};
  if (users) want = {static_cast<int64_t>(call.slices.size()), call.width};
  if (tensor.type == TensorType::kBytes) return wrong("is of type BYTES, want numbers");
  std::vector<int64_t> leading = tensor.shape;
  int64_t columns = 1;
  if (leading.size() == want.size() + 1) {
    columns = leading.back();
    leading.pop_back();
  }
  if (leading != want) {
    return wrong(
        absl::StrCat("has shape ", ShapeText(tensor.shape), ", want ", ShapeText(want), " for ", call.pairs, " pairs"));
  }
  const int64_t column = std::max<int64_t>(output.column, 0);
  if (column >= columns || (columns > 1 && output.column < 0)) {
    return wrong(absl::StrCat("has shape ", ShapeText(tensor.shape), ", and the mapping asks for ",
                              output.column < 0 ? "no column of it" : absl::StrCat("column ", output.column)));
  }
  const std::optional<int64_t> count = ElementCount(tensor.shape, kMaxOutputElements);
  if (!count) return wrong(absl::StrCat("has shape ", ShapeText(tensor.shape), ", which is too large"));
  const int64_t size = ElementBytes(tensor.type);
  if (static_cast<int64_t>(tensor.raw.size()) != *count * size) {
    return wrong(absl::StrCat("has ", tensor.raw.size(), " bytes, want ", *count * size, " for shape ",
                              ShapeText(tensor.shape), " of ", TensorTypeName(tensor.type)));
  }
  std::vector<float> scores;
  for (size_t s = 0; s < call.slices.size(); ++s) {
    const int64_t begin = users ? static_cast<int64_t>(s) * call.width : static_cast<int64_t>(scores.size());
    for (int64_t k = 0; k < static_cast<int64_t>(call.slices[s].count); ++k) {
      const char* at = tensor.raw.data() + ((begin + k) * columns + column) * size;
      scores.push_back(static_cast<float>(ReadNumber(tensor.type, at)));
    }
  }
  return scores;
}

absl::Status QueryEncoder::CheckPromises(absl::Span<const TensorPromise> inputs,
                                         absl::Span<const TensorPromise> outputs) const {
  std::vector<std::string> lines;
  const auto names = [](absl::Span<const TensorPromise> all) {
    const auto append = [](std::string* to, const TensorPromise& one) { to->append(one.name); };
    return absl::StrCat(absl::StrJoin(all.subspan(0, kMaxNames), ", ", append), all.size() > kMaxNames ? ", ..." : "");
  };
  const auto find = [](absl::Span<const TensorPromise> all, absl::string_view name) -> const TensorPromise* {
    const auto found = std::find_if(all.begin(), all.end(), [&](const TensorPromise& one) { return one.name == name; });
    return found == all.end() ? nullptr : &*found;
  };
  for (size_t i = 0; !inputs.empty() && i < mapping_.inputs.size(); ++i) {
    const MappedInput& input = mapping_.inputs[i];
    const TensorPromise* promise = find(inputs, input.name);
    if (promise == nullptr) {
      lines.push_back(absl::StrCat(input.place, ": the model has no input of this name, it has ", names(inputs),
                                   "; rename the key or remove it"));
      continue;
    }
    if (promise->type != TensorTypeName(input.type)) {
      lines.push_back(absl::StrCat(input.place, ".type: the model wants ", promise->type, ", the mapping gives ",
                                   TensorTypeName(input.type), "; write type: ", promise->type));
    }
    const std::vector<int64_t> ours = Shape(i, -1, -1, -1);
    if (!promise->shape.empty() &&
        !std::equal(ours.begin(), ours.end(), promise->shape.begin(), promise->shape.end(), SizesMeet)) {
      lines.push_back(absl::StrCat(input.place, ": the model wants shape ", ShapeText(promise->shape),
                                   ", the mapping gives ", ShapeText(ours),
                                   " (-1: any size); see layout, length, last_dimension and column"));
    }
  }
  for (const TensorPromise& promise : inputs) {
    const bool mapped = std::any_of(mapping_.inputs.begin(), mapping_.inputs.end(),
                                    [&](const MappedInput& input) { return input.name == promise.name; });
    if (!mapped) {
      lines.push_back(absl::StrCat(mapping_.source, ": inputs.", promise.name, ": is missing; the model wants it, ",
                                   promise.type, " ", ShapeText(promise.shape)));
    }
  }
  const size_t dimensions = mapping_.layout == Layout::kUsers ? 2 : 1;
  for (const MappedOutput& output : mapping_.outputs) {
    const TensorPromise* promise = find(outputs, output.output);
    if (outputs.empty()) break;
    if (promise == nullptr) {
      lines.push_back(absl::StrCat(output.place, ".output: the model has no output '", output.output, "', it has ",
                                   names(outputs)));
      continue;
    }
    const std::optional<TensorType> type = FindTensorType(promise->type);
    if (!type || *type == TensorType::kBytes) {
      lines.push_back(absl::StrCat(output.place, ".output: want numbers, the model gives ", promise->type));
    }
    const std::vector<int64_t>& shape = promise->shape;
    if (shape.empty()) continue;
    const bool last = shape.size() == dimensions + 1;
    const bool enough = last
                            ? shape.back() < 0 || (output.column < 0 ? shape.back() == 1 : output.column < shape.back())
                            : shape.size() == dimensions && output.column <= 0;
    if (!enough) {
      lines.push_back(absl::StrCat(output.place, ": the model gives shape ", ShapeText(shape), ", want ", dimensions,
                                   " dimensions (layout), or one more and a column of it"));
    }
  }
  if (lines.empty()) return absl::OkStatus();
  if (lines.size() > kMaxMismatches) {
    const size_t more = lines.size() - kMaxMismatches;
    lines.resize(kMaxMismatches);
    lines.push_back(absl::StrCat("and ", more, " more"));
  }
  return absl::InvalidArgumentError(absl::StrJoin(lines, "\n"));
}

}  // namespace sluice::reward
