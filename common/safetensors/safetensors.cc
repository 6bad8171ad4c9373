#include "common/safetensors/safetensors.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cerrno>
#include <cstring>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/file/file.h"
#include "common/status/status.h"

namespace sluice {
namespace {

static_assert(std::endian::native == std::endian::little, "tensor bytes are copied as they lie in the file");

using nlohmann::json;

constexpr char kMetadataKey[] = "__metadata__";
constexpr int64_t kLengthBytes = 8;
constexpr size_t kMaxDimensions = 16;
constexpr int64_t kMaxIndexBytes = 100'000'000;
constexpr char kRemedy[] = "; copy or download the file again";

struct DtypeRow {
  TensorDtype dtype;
  const char* name;
  int64_t bytes;
};

constexpr std::array<DtypeRow, 15> kDtypes = {{
    {TensorDtype::kBool, "BOOL", 1},
    {TensorDtype::kU8, "U8", 1},
    {TensorDtype::kI8, "I8", 1},
    {TensorDtype::kF8E4M3, "F8_E4M3", 1},
    {TensorDtype::kF8E5M2, "F8_E5M2", 1},
    {TensorDtype::kI16, "I16", 2},
    {TensorDtype::kU16, "U16", 2},
    {TensorDtype::kF16, "F16", 2},
    {TensorDtype::kBF16, "BF16", 2},
    {TensorDtype::kI32, "I32", 4},
    {TensorDtype::kU32, "U32", 4},
    {TensorDtype::kF32, "F32", 4},
    {TensorDtype::kI64, "I64", 8},
    {TensorDtype::kU64, "U64", 8},
    {TensorDtype::kF64, "F64", 8},
}};

const DtypeRow& RowOf(TensorDtype dtype) {
  for (const DtypeRow& row : kDtypes) {
    if (row.dtype == dtype) return row;
  }
  CheckFailed(__FILE__, __LINE__, "dtype", "unknown data type");
}

std::optional<TensorDtype> DtypeOf(absl::string_view name) {
  for (const DtypeRow& row : kDtypes) {
    if (name == row.name) return row.dtype;
  }
  return std::nullopt;
}

// shape x dtype in bytes, or nothing if that is more than an int64_t holds.
std::optional<int64_t> TensorBytes(absl::Span<const int64_t> shape, TensorDtype dtype) {
  // A zero makes the tensor empty, but the other sizes must still multiply
  // without overflow: a reader that multiplies in another order would see it.
  int64_t product = DtypeBytes(dtype);
  bool empty = false;
  for (const int64_t size : shape) {
    if (size < 0) return std::nullopt;
    if (size == 0) {
      empty = true;
    } else if (__builtin_mul_overflow(product, size, &product)) {
      return std::nullopt;
    }
  }
  return empty ? 0 : product;
}

// Names are foreign text: cut, and free of control characters, before they go
// into a message.
std::string Quoted(absl::string_view name) {
  std::string text;
  for (const char c : name.substr(0, 120)) text.push_back(static_cast<unsigned char>(c) < 0x20 ? '?' : c);
  return absl::StrCat("'", text, name.size() > 120 ? "...'" : "'");
}

// The header as it stands, offsets still relative to the data section.
struct RawTensor {
  std::optional<TensorDtype> dtype;
  std::optional<std::vector<int64_t>> shape;
  std::optional<std::vector<int64_t>> offsets;
};

// Builds the table while nlohmann's SAX parser walks the header, and stops at
// the first thing that the format does not allow: unlike a parsed document this
// sees duplicate keys and cannot be made to nest or to allocate.
class HeaderParser : public nlohmann::json_sax<json> {
 public:
  std::map<std::string, RawTensor> tensors;
  std::map<std::string, std::string> metadata;
  std::string error;

  bool null() override { return Fail("null"); }
  bool boolean(bool) override { return Fail("true or false"); }
  bool number_integer(number_integer_t) override { return Fail("a negative number"); }
  bool number_float(number_float_t, const string_t&) override {
    return Fail("a number that is no integer or has more than 64 bits");
  }
  bool binary(binary_t&) override { return Fail("binary"); }

  bool number_unsigned(number_unsigned_t value) override {
    if (place_ != Place::kShape && place_ != Place::kOffsets) return Fail("a number");
    if (value > static_cast<number_unsigned_t>(std::numeric_limits<int64_t>::max())) {
      return Fail("a number that has more than 63 bits");
    }
    std::vector<int64_t>& list = place_ == Place::kShape ? *tensor_->shape : *tensor_->offsets;
    if (list.size() >= kMaxDimensions) return Fail(absl::StrCat("a list of more than ", kMaxDimensions, " numbers"));
    list.push_back(static_cast<int64_t>(value));
    return true;
  }

  bool string(string_t& value) override {
    if (place_ == Place::kMetadata) {
      metadata[key_] = value;
      return true;
    }
    if (place_ != Place::kTensor || key_ != "dtype") return Fail("text");
    tensor_->dtype = DtypeOf(value);
    if (!tensor_->dtype) {
      unsupported_ = true;
      error = absl::StrCat("tensor ", Quoted(name_), " has the data type ", Quoted(value),
                           ", which Sluice does not read; convert it to F32, F16 or BF16");
      return false;
    }
    return true;
  }

  bool start_object(std::size_t) override {
    if (place_ == Place::kStart) {
      place_ = Place::kNames;
      return true;
    }
    if (place_ != Place::kNames) return Fail("an object");
    if (name_ == kMetadataKey) {
      place_ = Place::kMetadata;
    } else {
      place_ = Place::kTensor;
      tensor_ = &tensors[name_];
    }
    key_.clear();
    keys_.clear();
    return true;
  }

  bool key(string_t& value) override {
    if (place_ == Place::kNames) {
      name_ = value;
      if (!names_.insert(value).second) {
        error = absl::StrCat("its header names ", Quoted(value), " twice");
        return false;
      }
      return true;
    }
    key_ = value;
    if (!keys_.insert(value).second) {
      error = absl::StrCat("its header gives ", Quoted(value), " of ", Quoted(name_), " twice");
      return false;
    }
    if (place_ == Place::kTensor && value != "dtype" && value != "shape" && value != "data_offsets") {
      error = absl::StrCat("tensor ", Quoted(name_), " has the unknown property ", Quoted(value));
      return false;
    }
    return true;
  }

  bool end_object() override {
    if (place_ == Place::kTensor && !(tensor_->dtype && tensor_->shape && tensor_->offsets)) {
      error = absl::StrCat("tensor ", Quoted(name_), " lacks ",
                           !tensor_->dtype ? "dtype" : (!tensor_->shape ? "shape" : "data_offsets"));
      return false;
    }
    place_ = place_ == Place::kNames ? Place::kEnd : Place::kNames;
    return true;
  }

  bool start_array(std::size_t) override {
    if (place_ == Place::kTensor && key_ == "shape") {
      place_ = Place::kShape;
      tensor_->shape.emplace();
      return true;
    }
    if (place_ == Place::kTensor && key_ == "data_offsets") {
      place_ = Place::kOffsets;
      tensor_->offsets.emplace();
      return true;
    }
    return Fail("a list");
  }

  bool end_array() override {
    place_ = Place::kTensor;
    return true;
  }

  bool parse_error(std::size_t position, const std::string&, const nlohmann::detail::exception&) override {
    error = absl::StrCat("its header is not valid JSON at byte ", position);
    return false;
  }

  bool unsupported() const { return unsupported_; }

 private:
  enum class Place { kStart, kNames, kTensor, kShape, kOffsets, kMetadata, kEnd };

  bool Fail(absl::string_view what) {
    if (place_ == Place::kStart) {
      error = absl::StrCat("its header is ", what, ", want an object");
    } else {
      error = absl::StrCat("its header has ", what, " at ", Quoted(name_),
                           key_.empty() ? "" : absl::StrCat(", property ", Quoted(key_)), ", where none belongs");
    }
    return false;
  }

  Place place_ = Place::kStart;
  std::string name_;
  std::string key_;
  absl::flat_hash_set<std::string> names_;
  absl::flat_hash_set<std::string> keys_;
  RawTensor* tensor_ = nullptr;  // a std::map's nodes do not move
  bool unsupported_ = false;
};

absl::Status Damaged(const std::string& path, absl::string_view what) {
  return absl::DataLossError(absl::StrCat("'", path, "': ", what, kRemedy));
}

absl::Status ReadRange(int descriptor, const std::string& path, int64_t offset, char* out, int64_t bytes) {
  while (bytes > 0) {
    const ssize_t got = ::pread(descriptor, out, static_cast<size_t>(bytes), offset);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return absl::InternalError(absl::StrCat("cannot read '", path, "': ", std::strerror(errno)));
    if (got == 0) return Damaged(path, absl::StrCat("ends at byte ", offset, ", ", bytes, " bytes too early"));
    out += got;
    offset += got;
    bytes -= got;
  }
  return absl::OkStatus();
}

// Checks one tensor's range against its shape and the data section.
absl::StatusOr<TensorInfo> CheckTensor(const std::string& path, const std::string& name, const RawTensor& raw,
                                       int64_t data_begin, int64_t data_bytes) {
  const std::vector<int64_t>& offsets = *raw.offsets;
  if (offsets.size() != 2 || offsets[0] > offsets[1]) {
    return Damaged(path, absl::StrCat("tensor ", Quoted(name), " has data_offsets ", ShapeText(offsets),
                                      ", want [begin, end] with begin <= end"));
  }
  if (offsets[1] > data_bytes) {
    return Damaged(path, absl::StrCat("tensor ", Quoted(name), " ends at data byte ", offsets[1],
                                      ", but the file has only ", data_bytes, " (cut short?)"));
  }
  const std::optional<int64_t> want = TensorBytes(*raw.shape, *raw.dtype);
  if (!want || *want != offsets[1] - offsets[0]) {
    return Damaged(
        path, absl::StrCat("tensor ", Quoted(name), " of shape ", ShapeText(*raw.shape), " and type ",
                           DtypeName(*raw.dtype), " needs ", want ? absl::StrCat(*want) : std::string("more than 2^63"),
                           " bytes, got ", offsets[1] - offsets[0]));
  }
  return TensorInfo{*raw.dtype, *raw.shape, data_begin + offsets[0], *want};
}

// Tensors lie one after the other, from the first byte of the data section to
// the last.
absl::Status CheckTiling(const std::string& path, const std::map<std::string, TensorInfo>& tensors, int64_t data_begin,
                         int64_t data_bytes) {
  std::vector<std::pair<const TensorInfo*, const std::string*>> order;
  order.reserve(tensors.size());
  for (const auto& [name, info] : tensors) order.emplace_back(&info, &name);
  std::sort(order.begin(), order.end(), [](const auto& a, const auto& b) {
    return std::pair(a.first->offset, a.first->bytes) < std::pair(b.first->offset, b.first->bytes);
  });
  int64_t at = data_begin;
  for (const auto& [info, name] : order) {
    if (info->offset != at) {
      return Damaged(path, absl::StrCat("tensor ", Quoted(*name), " begins at data byte ", info->offset - data_begin,
                                        info->offset < at ? ", inside the one before it, which ends at "
                                                          : ", after a gap: the one before it ends at ",
                                        at - data_begin));
    }
    at += info->bytes;
  }
  if (at != data_begin + data_bytes) {
    return Damaged(path,
                   absl::StrCat("its tensors end at data byte ", at - data_begin, ", but the file has ", data_bytes));
  }
  return absl::OkStatus();
}

}  // namespace

int64_t DtypeBytes(TensorDtype dtype) { return RowOf(dtype).bytes; }
absl::string_view DtypeName(TensorDtype dtype) { return RowOf(dtype).name; }

std::string ShapeText(absl::Span<const int64_t> shape) { return absl::StrCat("[", absl::StrJoin(shape, ", "), "]"); }

absl::StatusOr<std::unique_ptr<SafetensorsFile>> SafetensorsFile::Open(const std::string& path) {
  SLUICE_RETURN_IF_ERROR(FileBytes(path).status());  // NotFound and "is a folder" in common/file's words
  const int descriptor = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (descriptor < 0) {
    return absl::PermissionDeniedError(absl::StrCat("cannot open '", path, "': ", std::strerror(errno)));
  }
  std::unique_ptr<SafetensorsFile> file(new SafetensorsFile(path, descriptor));
  SLUICE_RETURN_IF_ERROR(file->ReadHeader());
  return file;
}

SafetensorsFile::~SafetensorsFile() { ::close(descriptor_); }

absl::Status SafetensorsFile::ReadHeader() {
  struct stat status;
  if (::fstat(descriptor_, &status) != 0) {
    return absl::InternalError(absl::StrCat("cannot read '", path_, "': ", std::strerror(errno)));
  }
  if (!S_ISREG(status.st_mode)) return absl::InvalidArgumentError(absl::StrCat("'", path_, "' is no regular file"));
  const int64_t file_bytes = status.st_size;
  uint64_t header_bytes = 0;
  if (file_bytes < kLengthBytes) {
    return Damaged(path_, absl::StrCat("has ", file_bytes, " bytes, fewer than a safetensors file's header length"));
  }
  SLUICE_RETURN_IF_ERROR(ReadRange(descriptor_, path_, 0, reinterpret_cast<char*>(&header_bytes), kLengthBytes));
  if (header_bytes > static_cast<uint64_t>(kMaxHeaderBytes) ||
      static_cast<int64_t>(header_bytes) > file_bytes - kLengthBytes) {
    return Damaged(path_, absl::StrCat("its first 8 bytes promise a header of ", header_bytes, " bytes, but ",
                                       file_bytes - kLengthBytes, " follow and ", kMaxHeaderBytes,
                                       " are allowed; it is cut short or no safetensors file"));
  }
  std::string header(header_bytes, '\0');
  SLUICE_RETURN_IF_ERROR(ReadRange(descriptor_, path_, kLengthBytes, header.data(), header_bytes));
  if (header.empty() || header[0] != '{') {
    return Damaged(path_, "its header does not start with '{'; it is no safetensors file");
  }
  HeaderParser parser;
  if (!json::sax_parse(header, &parser)) {
    if (parser.unsupported()) return absl::UnimplementedError(absl::StrCat("'", path_, "': ", parser.error));
    return Damaged(path_, parser.error);
  }
  const int64_t data_begin = kLengthBytes + static_cast<int64_t>(header_bytes);
  const int64_t data_bytes = file_bytes - data_begin;
  for (const auto& [name, raw] : parser.tensors) {
    SLUICE_ASSIGN_OR_RETURN(tensors_[name], CheckTensor(path_, name, raw, data_begin, data_bytes));
  }
  metadata_ = std::move(parser.metadata);
  return CheckTiling(path_, tensors_, data_begin, data_bytes);
}

bool SafetensorsFile::Has(absl::string_view name) const { return tensors_.count(std::string(name)) > 0; }

absl::StatusOr<TensorInfo> SafetensorsFile::Info(absl::string_view name) const {
  const auto found = tensors_.find(std::string(name));
  if (found == tensors_.end()) {
    return absl::NotFoundError(
        absl::StrCat("'", path_, "' has no tensor ", Quoted(name), " among its ", tensors_.size()));
  }
  return found->second;
}

absl::StatusOr<std::string> SafetensorsFile::Read(absl::string_view name) const {
  SLUICE_ASSIGN_OR_RETURN(const TensorInfo info, Info(name));
  std::string bytes(static_cast<size_t>(info.bytes), '\0');
  SLUICE_RETURN_IF_ERROR(ReadRange(descriptor_, path_, info.offset, bytes.data(), info.bytes));
  return bytes;
}

absl::Status SafetensorsFile::ReadInto(absl::string_view name, void* out, int64_t bytes) const {
  SLUICE_ASSIGN_OR_RETURN(const TensorInfo info, Info(name));
  if (info.bytes != bytes) {
    return absl::InvalidArgumentError(absl::StrCat("'", path_, "': want ", bytes, " bytes for tensor ", Quoted(name),
                                                   ", it has ", info.bytes, " (", DtypeName(info.dtype), " ",
                                                   ShapeText(info.shape), ")"));
  }
  return ReadRange(descriptor_, path_, info.offset, static_cast<char*>(out), bytes);
}

namespace {

// weight_map of an index: tensor name -> shard's file name.
class IndexParser : public nlohmann::json_sax<json> {
 public:
  std::map<std::string, std::string> weight_map;
  std::string error;
  bool seen = false;

  bool null() override { return Value(); }
  bool boolean(bool) override { return Value(); }
  bool number_integer(number_integer_t) override { return Value(); }
  bool number_unsigned(number_unsigned_t) override { return Value(); }
  bool number_float(number_float_t, const string_t&) override { return Value(); }
  bool binary(binary_t&) override { return Value(); }
  bool string(string_t& value) override {
    if (!InMap()) return Value();
    weight_map[key_] = value;
    return true;
  }
  bool start_object(std::size_t) override {
    if (depth_ == 1 && key_ == "weight_map") {
      if (seen) return Fail("weight_map comes twice");
      seen = in_map_ = true;
    } else if (InMap()) {
      return Value();
    }
    return Nest();
  }
  bool key(string_t& value) override {
    key_ = value;
    if (InMap() && weight_map.count(value) > 0) return Fail(absl::StrCat("it names tensor ", Quoted(value), " twice"));
    return true;
  }
  bool end_object() override {
    if (depth_ == 2) in_map_ = false;
    --depth_;
    return true;
  }
  bool start_array(std::size_t) override { return depth_ == 0 || InMap() ? Value() : Nest(); }
  bool end_array() override {
    --depth_;
    return true;
  }
  bool parse_error(std::size_t position, const std::string&, const nlohmann::detail::exception&) override {
    return Fail(absl::StrCat("it is not valid JSON at byte ", position));
  }

 private:
  bool InMap() const { return in_map_ && depth_ == 2; }
  // A value that is no text where weight_map wants one, or no object at the
  // top.
  bool Value() {
    if (depth_ == 0) return Fail("it is no JSON object");
    if (InMap()) return Fail(absl::StrCat("the shard of tensor ", Quoted(key_), " is no text"));
    return true;
  }
  bool Nest() { return ++depth_ <= 32 || Fail("it nests too deeply"); }
  bool Fail(std::string what) {
    error = std::move(what);
    return false;
  }

  int depth_ = 0;
  bool in_map_ = false;
  std::string key_;
};

bool IsPlainFileName(const std::string& name) {
  return !name.empty() && name != "." && name != ".." && name.find('/') == std::string::npos &&
         name.find('\\') == std::string::npos && name.find('\0') == std::string::npos;
}

absl::StatusOr<std::map<std::string, std::string>> ReadIndex(const std::string& path) {
  SLUICE_ASSIGN_OR_RETURN(const std::string text, ReadFile(path, kMaxIndexBytes));
  IndexParser parser;
  if (!json::sax_parse(text, &parser)) return Damaged(path, parser.error);
  if (!parser.seen || parser.weight_map.empty()) return Damaged(path, "it has no weight_map or an empty one");
  for (const auto& [tensor, shard] : parser.weight_map) {
    if (!IsPlainFileName(shard)) {
      return Damaged(path, absl::StrCat("tensor ", Quoted(tensor), " is said to lie in ", Quoted(shard),
                                        ", which is no plain file name"));
    }
  }
  return std::move(parser.weight_map);
}

}  // namespace

absl::StatusOr<std::unique_ptr<SafetensorsFolder>> SafetensorsFolder::Open(const std::string& folder,
                                                                           absl::string_view stem) {
  std::unique_ptr<SafetensorsFolder> result(new SafetensorsFolder);
  result->folder_ = folder;
  const std::string index = JoinPath(folder, absl::StrCat(stem, ".safetensors.index.json"));
  if (!PathExists(index)) {
    const std::string path = JoinPath(folder, absl::StrCat(stem, ".safetensors"));
    if (!PathExists(path)) {
      return absl::NotFoundError(absl::StrCat("'", folder, "' has neither ", stem, ".safetensors nor ", stem,
                                              ".safetensors.index.json; is it a model folder?"));
    }
    SLUICE_ASSIGN_OR_RETURN(std::unique_ptr<SafetensorsFile> file, SafetensorsFile::Open(path));
    for (const auto& [name, info] : file->tensors()) {
      result->names_.push_back(name);
      result->file_of_[name] = file.get();
    }
    result->files_.push_back(std::move(file));
    return result;
  }
  SLUICE_ASSIGN_OR_RETURN(const auto weight_map, ReadIndex(index));
  std::map<std::string, const SafetensorsFile*> shards;
  for (const auto& [name, shard] : weight_map) shards[shard] = nullptr;
  for (auto& [shard, file] : shards) {
    SLUICE_ASSIGN_OR_RETURN(std::unique_ptr<SafetensorsFile> opened, SafetensorsFile::Open(JoinPath(folder, shard)));
    file = opened.get();
    result->files_.push_back(std::move(opened));
  }
  for (const auto& [name, shard] : weight_map) {
    if (!shards[shard]->Has(name)) {
      return Damaged(index, absl::StrCat("tensor ", Quoted(name), " is not in its shard '", shard, "'"));
    }
    result->names_.push_back(name);
    result->file_of_[name] = shards[shard];
  }
  return result;
}

absl::StatusOr<const SafetensorsFile*> SafetensorsFolder::FileOf(absl::string_view name) const {
  const auto found = file_of_.find(name);
  if (found == file_of_.end()) {
    return absl::NotFoundError(
        absl::StrCat("the model in '", folder_, "' has no tensor ", Quoted(name), " among its ", names_.size()));
  }
  return found->second;
}

absl::StatusOr<TensorInfo> SafetensorsFolder::Info(absl::string_view name) const {
  SLUICE_ASSIGN_OR_RETURN(const SafetensorsFile* file, FileOf(name));
  return file->Info(name);
}

absl::StatusOr<std::string> SafetensorsFolder::Read(absl::string_view name) const {
  SLUICE_ASSIGN_OR_RETURN(const SafetensorsFile* file, FileOf(name));
  return file->Read(name);
}

absl::Status SafetensorsFolder::ReadInto(absl::string_view name, void* out, int64_t bytes) const {
  SLUICE_ASSIGN_OR_RETURN(const SafetensorsFile* file, FileOf(name));
  return file->ReadInto(name, out, bytes);
}

std::vector<std::string> SafetensorsFolder::paths() const {
  std::vector<std::string> paths;
  for (const auto& file : files_) paths.push_back(file->path());
  return paths;
}

namespace {

// Throws json::type_error if a text is not UTF-8.
std::string HeaderText(absl::Span<const TensorToWrite* const> order,
                       const std::map<std::string, std::string>& metadata) {
  json header = json::object();
  if (!metadata.empty()) header[kMetadataKey] = metadata;
  // Entries are appended as text: an ordered JSON object looks keys up
  // linearly.
  std::string text = header.dump();
  text.pop_back();
  int64_t at = 0;
  for (const TensorToWrite* tensor : order) {
    const nlohmann::ordered_json entry = {{"dtype", std::string(DtypeName(tensor->dtype))},
                                          {"shape", tensor->shape},
                                          {"data_offsets", {at, at + tensor->bytes}}};
    absl::StrAppend(&text, text.size() > 1 ? "," : "", json(tensor->name).dump(), ":", entry.dump());
    at += tensor->bytes;
  }
  text.push_back('}');
  return text;
}

}  // namespace

absl::Status WriteSafetensors(const std::string& path, absl::Span<const TensorToWrite> tensors,
                              const std::map<std::string, std::string>& metadata) {
  std::vector<const TensorToWrite*> order;
  absl::flat_hash_set<absl::string_view> names;
  for (const TensorToWrite& tensor : tensors) {
    if (tensor.name.empty() || tensor.name == kMetadataKey || !names.insert(tensor.name).second) {
      return absl::InvalidArgumentError(absl::StrCat("cannot write '", path, "': tensor name ", Quoted(tensor.name),
                                                     " is empty, reserved or given twice"));
    }
    const std::optional<int64_t> want = TensorBytes(tensor.shape, tensor.dtype);
    if (!want || *want != tensor.bytes || (*want > 0 && tensor.data == nullptr)) {
      return absl::InvalidArgumentError(
          absl::StrCat("cannot write '", path, "': tensor ", Quoted(tensor.name), " of shape ", ShapeText(tensor.shape),
                       " and type ", DtypeName(tensor.dtype), " came with ", tensor.bytes, " bytes of data"));
    }
    order.push_back(&tensor);
  }
  std::sort(order.begin(), order.end(), [](const TensorToWrite* a, const TensorToWrite* b) {
    return std::pair(-DtypeBytes(a->dtype), absl::string_view(a->name)) <
           std::pair(-DtypeBytes(b->dtype), absl::string_view(b->name));
  });
  std::string text;
  try {
    text = HeaderText(order, metadata);
  } catch (const json::exception& error) {
    return absl::InvalidArgumentError(
        absl::StrCat("cannot write '", path, "': a name or a metadata text is not UTF-8 (", error.what(), ")"));
  }
  text.resize((text.size() + 7) / 8 * 8, ' ');
  if (static_cast<int64_t>(text.size()) > SafetensorsFile::kMaxHeaderBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("cannot write '", path, "': its header would have ", text.size(), " bytes"));
  }
  return WriteFileAtomically(path, [&](const FileSink& sink) -> absl::Status {
    const uint64_t header_bytes = text.size();
    SLUICE_RETURN_IF_ERROR(sink(absl::string_view(reinterpret_cast<const char*>(&header_bytes), kLengthBytes)));
    SLUICE_RETURN_IF_ERROR(sink(text));
    for (const TensorToWrite* tensor : order) {
      SLUICE_RETURN_IF_ERROR(
          sink(absl::string_view(static_cast<const char*>(tensor->data), static_cast<size_t>(tensor->bytes))));
    }
    return absl::OkStatus();
  });
}

}  // namespace sluice
