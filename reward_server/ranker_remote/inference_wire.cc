#include "reward_server/ranker_remote/inference_wire.h"

#include <algorithm>
#include <cstring>
#include <optional>
#include <type_traits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/status/status.h"

namespace sluice::reward {
namespace {

using ::inference::InferTensorContents;

// Appends the elements of a typed field as raw bytes.
template <typename Values>
std::string RawOf(TensorType type, const Values& values) {
  std::string raw;
  raw.reserve(static_cast<size_t>(values.size()) * static_cast<size_t>(ElementBytes(type)));
  for (const auto value : values) {
    if constexpr (std::is_floating_point_v<decltype(value)>) {
      AppendNumber(type, value, &raw);
    } else {
      AppendInteger(type, static_cast<int64_t>(value), &raw);
    }
  }
  return raw;
}

// Of numbers that travel wider than they are.
template <typename Values>
absl::StatusOr<std::string> NarrowRawOf(TensorType type, const Values& values) {
  for (const auto value : values) {
    if (FitsInteger(type, static_cast<int64_t>(value))) continue;
    return absl::DataLossError(absl::StrCat("holds ", value, ", which is no ", TensorTypeName(type)));
  }
  return RawOf(type, values);
}

// How many elements all fields of the contents hold together.
int64_t ElementsOf(const InferTensorContents& contents) {
  return int64_t{contents.bool_contents_size()} + contents.int_contents_size() + contents.int64_contents_size() +
         contents.uint_contents_size() + contents.uint64_contents_size() + contents.fp32_contents_size() +
         contents.fp64_contents_size() + contents.bytes_contents_size();
}

absl::StatusOr<std::string> TypedToRaw(TensorType type, const InferTensorContents& contents) {
  const auto all_in = [&](int size) {
    return size == ElementsOf(contents)
               ? absl::OkStatus()
               : absl::DataLossError(absl::StrCat("has contents in another field than that of ", TensorTypeName(type)));
  };
  switch (type) {
    case TensorType::kBool:
      SLUICE_RETURN_IF_ERROR(all_in(contents.bool_contents_size()));
      return RawOf(type, contents.bool_contents());
    case TensorType::kInt8:
    case TensorType::kInt16:
    case TensorType::kInt32:
      SLUICE_RETURN_IF_ERROR(all_in(contents.int_contents_size()));
      return NarrowRawOf(type, contents.int_contents());
    case TensorType::kInt64:
      SLUICE_RETURN_IF_ERROR(all_in(contents.int64_contents_size()));
      return RawOf(type, contents.int64_contents());
    case TensorType::kUint8:
    case TensorType::kUint16:
    case TensorType::kUint32:
      SLUICE_RETURN_IF_ERROR(all_in(contents.uint_contents_size()));
      return NarrowRawOf(type, contents.uint_contents());
    case TensorType::kUint64:
      SLUICE_RETURN_IF_ERROR(all_in(contents.uint64_contents_size()));
      return RawOf(type, contents.uint64_contents());
    case TensorType::kFp32:
      SLUICE_RETURN_IF_ERROR(all_in(contents.fp32_contents_size()));
      return RawOf(type, contents.fp32_contents());
    case TensorType::kFp64:
      SLUICE_RETURN_IF_ERROR(all_in(contents.fp64_contents_size()));
      return RawOf(type, contents.fp64_contents());
    case TensorType::kFp16:
    case TensorType::kBf16:
    case TensorType::kBytes:
      break;
  }
  return absl::DataLossError(absl::StrCat("is of ", TensorTypeName(type), " without raw contents"));
}

// Moves raw bytes that this process made into the typed field.
void RawToTyped(const Tensor& tensor, InferTensorContents* contents) {
  const char* at = tensor.raw.data();
  const char* const end = at + tensor.raw.size();
  if (tensor.type == TensorType::kBytes) {
    while (at < end) {
      uint32_t size = 0;
      std::memcpy(&size, at, sizeof(size));
      contents->add_bytes_contents(at + sizeof(size), size);
      at += sizeof(size) + size;
    }
    return;
  }
  for (; at < end; at += ElementBytes(tensor.type)) {
    switch (tensor.type) {
      case TensorType::kBool:
        contents->add_bool_contents(*at != 0);
        break;
      case TensorType::kInt64: {
        int64_t value = 0;
        std::memcpy(&value, at, sizeof(value));
        contents->add_int64_contents(value);
        break;
      }
      case TensorType::kUint64: {
        uint64_t value = 0;
        std::memcpy(&value, at, sizeof(value));
        contents->add_uint64_contents(value);
        break;
      }
      case TensorType::kFp32:
        contents->add_fp32_contents(static_cast<float>(ReadNumber(tensor.type, at)));
        break;
      case TensorType::kFp64:
        contents->add_fp64_contents(ReadNumber(tensor.type, at));
        break;
      case TensorType::kUint8:
      case TensorType::kUint16:
      case TensorType::kUint32:
        contents->add_uint_contents(static_cast<uint32_t>(ReadNumber(tensor.type, at)));
        break;
      default:
        contents->add_int_contents(static_cast<int32_t>(ReadNumber(tensor.type, at)));
    }
  }
}

}  // namespace

std::string Quoted(const std::string& text) {
  return text.size() <= kMaxQuotedBytes ? text : absl::StrCat(text.substr(0, kMaxQuotedBytes), "...");
}

::inference::ModelInferRequest InferRequest(const RankerMapping& mapping, std::vector<Tensor> inputs) {
  ::inference::ModelInferRequest request;
  request.set_model_name(mapping.remote.model);
  for (Tensor& tensor : inputs) {
    auto* input = request.add_inputs();
    input->set_name(tensor.name);
    const absl::string_view type = TensorTypeName(tensor.type);
    input->set_datatype(type.data(), type.size());
    input->mutable_shape()->Assign(tensor.shape.begin(), tensor.shape.end());
    if (mapping.remote.typed_contents) {
      RawToTyped(tensor, input->mutable_contents());
    } else {
      request.add_raw_input_contents(std::move(tensor.raw));
    }
  }
  std::vector<std::string> asked;  // two heads may be columns of one output
  for (const MappedOutput& output : mapping.outputs) {
    if (std::find(asked.begin(), asked.end(), output.output) != asked.end()) continue;
    asked.push_back(output.output);
    request.add_outputs()->set_name(output.output);
  }
  return request;
}

absl::StatusOr<std::vector<Tensor>> AnsweredTensors(::inference::ModelInferResponse answer) {
  if (answer.outputs_size() > kMaxAnsweredTensors) {
    return absl::DataLossError(
        absl::StrCat("the model answered ", answer.outputs_size(), " outputs, want at most ", kMaxAnsweredTensors));
  }
  const bool raw = answer.raw_output_contents_size() > 0;
  if (raw && answer.raw_output_contents_size() != answer.outputs_size()) {
    return absl::DataLossError(absl::StrCat("the model answered ", answer.outputs_size(), " outputs with ",
                                            answer.raw_output_contents_size(), " raw contents"));
  }
  std::vector<Tensor> tensors;
  for (int i = 0; i < answer.outputs_size(); ++i) {
    const auto& output = answer.outputs(i);
    const std::string what = absl::StrCat("the answered output '", Quoted(output.name()), "'");
    const std::optional<TensorType> type = FindTensorType(output.datatype());
    if (!type) {
      return absl::DataLossError(absl::StrCat(what, " has the unknown datatype '", Quoted(output.datatype()), "'"));
    }
    Tensor& tensor = tensors.emplace_back();
    tensor.name = output.name();
    tensor.type = *type;
    tensor.shape.assign(output.shape().begin(), output.shape().end());
    if (raw) {
      if (ElementsOf(output.contents()) > 0)
        return absl::DataLossError(absl::StrCat(what, " has raw and typed contents"));
      tensor.raw = std::move(*answer.mutable_raw_output_contents(i));
      continue;
    }
    // Nobody asks for texts; what one holds is not looked at.
    if (*type == TensorType::kBytes) continue;
    absl::StatusOr<std::string> bytes = TypedToRaw(*type, output.contents());
    if (!bytes.ok()) return absl::DataLossError(absl::StrCat(what, " ", bytes.status().message()));
    tensor.raw = *std::move(bytes);
  }
  return tensors;
}

absl::Status CheckAnswerer(const RankerMapping& mapping, const std::string& version,
                           const ::inference::ModelInferResponse& answer) {
  if (answer.model_name() != mapping.remote.model) {
    return absl::FailedPreconditionError(absl::StrCat("ranker ", mapping.name, ": asked model '", mapping.remote.model,
                                                      "', the answer is of '", Quoted(answer.model_name()), "'"));
  }
  if (answer.model_version() != version) {
    return absl::FailedPreconditionError(absl::StrCat(
        "ranker ", mapping.name, ": the answer is of version '", Quoted(answer.model_version()), "' of model '",
        mapping.remote.model, "', this server began with '", version, "'; restart it to use the other one"));
  }
  return absl::OkStatus();
}

std::vector<TensorPromise> Promises(
    const ::google::protobuf::RepeatedPtrField<::inference::ModelMetadataResponse::TensorMetadata>& tensors) {
  std::vector<TensorPromise> promises;
  for (const auto& tensor : tensors) {
    if (promises.size() == static_cast<size_t>(kMaxAnsweredTensors)) break;
    TensorPromise& promise = promises.emplace_back();
    promise.name = Quoted(tensor.name());
    promise.type = Quoted(tensor.datatype());
    for (int i = 0; i < tensor.shape_size() && i < 16; ++i) promise.shape.push_back(tensor.shape(i));
  }
  return promises;
}

}  // namespace sluice::reward
