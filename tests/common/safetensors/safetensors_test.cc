#include "common/safetensors/safetensors.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstring>
#include <fstream>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/file/file.h"
#include "common/random/random.h"

namespace sluice {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

class SafetensorsTest : public ::testing::Test {
 protected:
  SafetensorsTest() {
    folder_ = absl::StrCat(::testing::TempDir(), "/safetensors_",
                           ::testing::UnitTest::GetInstance()->current_test_info()->name(), "_", getpid());
    EXPECT_TRUE(RemoveAll(folder_).ok());
    EXPECT_TRUE(MakeDirectories(folder_).ok());
  }
  ~SafetensorsTest() override { EXPECT_TRUE(RemoveAll(folder_).ok()); }

  std::string Path(const std::string& name = "model.safetensors") const { return JoinPath(folder_, name); }

  // A file made by hand from the format's description, not by the writer.
  std::string Bytes(const std::string& header, const std::string& data) const {
    std::string bytes(8, '\0');
    for (int i = 0; i < 8; ++i) bytes[i] = static_cast<char>((uint64_t{header.size()} >> (8 * i)) & 0xff);
    return bytes + header + data;
  }

  absl::Status OpenStatus(const std::string& bytes) {
    EXPECT_TRUE(WriteFileAtomically(Path(), bytes).ok());
    return SafetensorsFile::Open(Path()).status();
  }

  void ExpectDamaged(const std::string& header, const std::string& data, const std::string& message) {
    const absl::Status status = OpenStatus(Bytes(header, data));
    EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss) << status << header;
    EXPECT_THAT(std::string(status.message()), HasSubstr(message));
    EXPECT_THAT(std::string(status.message()), HasSubstr(Path()));
  }

  std::string folder_;
};

TEST_F(SafetensorsTest, AHandMadeFileIsRead) {
  const float values[] = {1.5f, -2.0f};
  std::string data(reinterpret_cast<const char*>(values), sizeof(values));
  data += std::string("\x01\x02\x03", 3);
  ASSERT_TRUE(WriteFileAtomically(Path(), Bytes(R"({"b":{"dtype":"U8","shape":[3],"data_offsets":[8,11]},)"
                                                R"("__metadata__":{"format":"pt"},)"
                                                R"("a":{"dtype":"F32","shape":[2,1],"data_offsets":[0,8]}}   )",
                                                data))
                  .ok());
  const auto file = SafetensorsFile::Open(Path());
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_EQ((*file)->tensors().size(), 2);
  EXPECT_EQ((*file)->metadata().at("format"), "pt");
  EXPECT_THAT((*file)->Info("a")->shape, ElementsAre(2, 1));
  float read[2] = {0, 0};
  ASSERT_TRUE((*file)->ReadInto("a", read, sizeof(read)).ok());
  EXPECT_EQ(read[0], 1.5f);
  EXPECT_EQ(read[1], -2.0f);
  EXPECT_EQ(*(*file)->Read("b"), std::string("\x01\x02\x03", 3));
}

TEST_F(SafetensorsTest, EmptyTensorsAndScalarsAreTensors) {
  ASSERT_TRUE(OpenStatus(Bytes(R"({"e":{"dtype":"F32","shape":[0,7],"data_offsets":[0,0]},)"
                               R"("s":{"dtype":"I16","shape":[],"data_offsets":[0,2]},)"
                               R"("z":{"dtype":"F32","shape":[0],"data_offsets":[2,2]}})",
                               "ab"))
                  .ok());
  const auto file = SafetensorsFile::Open(Path());
  EXPECT_EQ((*file)->Info("s")->elements(), 1);
  EXPECT_EQ(*(*file)->Read("e"), "");
  EXPECT_TRUE(OpenStatus(Bytes("{}", "")).ok());
}

TEST_F(SafetensorsTest, RequestsThatDoNotFitAreRefused) {
  ASSERT_TRUE(OpenStatus(Bytes(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})", "1234")).ok());
  const auto file = SafetensorsFile::Open(Path());
  EXPECT_EQ((*file)->Read("b").status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string((*file)->Read("b").status().message()), HasSubstr("no tensor 'b'"));
  char small[2];
  EXPECT_EQ((*file)->ReadInto("a", small, 2).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(SafetensorsFile::Open(Path("other")).status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(SafetensorsFile::Open(folder_).status().code(), absl::StatusCode::kInvalidArgument);
}

TEST_F(SafetensorsTest, LyingHeadersAreRefused) {
  const std::string data = "12345678";
  // Range against range.
  ExpectDamaged(
      R"({"a":{"dtype":"U8","shape":[5],"data_offsets":[0,5]},"b":{"dtype":"U8","shape":[4],"data_offsets":[4,8]}})",
      data, "inside the one before it");
  ExpectDamaged(
      R"({"a":{"dtype":"U8","shape":[3],"data_offsets":[0,3]},"b":{"dtype":"U8","shape":[4],"data_offsets":[4,8]}})",
      data, "after a gap");
  ExpectDamaged(R"({"a":{"dtype":"U8","shape":[7],"data_offsets":[1,8]}})", data, "after a gap");
  ExpectDamaged(R"({"a":{"dtype":"U8","shape":[7],"data_offsets":[0,7]}})", data, "but the file has 8");
  ExpectDamaged(R"({})", data, "but the file has 8");
  // Range against file.
  ExpectDamaged(R"({"a":{"dtype":"U8","shape":[9],"data_offsets":[0,9]}})", data, "the file has only 8");
  ExpectDamaged(R"({"a":{"dtype":"U8","shape":[8],"data_offsets":[8,0]}})", data, "begin <= end");
  ExpectDamaged(R"({"a":{"dtype":"U8","shape":[8],"data_offsets":[0,4,8]}})", data, "begin <= end");
  ExpectDamaged(R"({"a":{"dtype":"U8","shape":[8],"data_offsets":[-1,8]}})", data, "negative");
  ExpectDamaged(R"({"a":{"dtype":"U8","shape":[8],"data_offsets":[0,18446744073709551615]}})", data, "63 bits");
  ExpectDamaged(R"({"a":{"dtype":"U8","shape":[8],"data_offsets":[0,99999999999999999999999]}})", data, "64 bits");
  // Range against shape. 2^32 x 2^32 x 4 is 0 in 64 bits, and so is 0 x that in
  // some orders.
  ExpectDamaged(R"({"a":{"dtype":"F32","shape":[3],"data_offsets":[0,8]}})", data, "needs 12 bytes, got 8");
  ExpectDamaged(R"({"a":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,0]}})", "", "2^63");
  ExpectDamaged(R"({"a":{"dtype":"F32","shape":[4294967296,4294967296,0],"data_offsets":[0,0]}})", "", "2^63");
  ExpectDamaged(R"({"a":{"dtype":"F32","shape":[4611686018427387906],"data_offsets":[0,8]}})", data, "2^63");
  // Names.
  ExpectDamaged(
      R"({"a":{"dtype":"U8","shape":[8],"data_offsets":[0,8]},"a":{"dtype":"U8","shape":[8],"data_offsets":[0,8]}})",
      data, "names 'a' twice");
  ExpectDamaged(R"({"a":{"dtype":"U8","dtype":"I8","shape":[8],"data_offsets":[0,8]}})", data, "twice");
  ExpectDamaged(R"({"__metadata__":{},"__metadata__":{}})", "", "twice");
}

TEST_F(SafetensorsTest, HeadersOfAnotherShapeAreRefused) {
  ExpectDamaged("", "", "no safetensors file");
  ExpectDamaged("[]", "", "does not start with '{'");
  ExpectDamaged(" {}", "", "does not start with '{'");
  ExpectDamaged("{", "", "not valid JSON");
  ExpectDamaged("{}{}", "", "not valid JSON");
  ExpectDamaged(R"({"a":1})", "", "where none belongs");
  ExpectDamaged(R"({"a":[]})", "", "where none belongs");
  ExpectDamaged(R"({"a":{}})", "", "lacks dtype");
  ExpectDamaged(R"({"a":{"dtype":"U8","data_offsets":[0,0]}})", "", "lacks shape");
  ExpectDamaged(R"({"a":{"dtype":"U8","shape":[0]}})", "", "lacks data_offsets");
  ExpectDamaged(R"({"a":{"dtype":8,"shape":[0],"data_offsets":[0,0]}})", "", "property 'dtype'");
  ExpectDamaged(R"({"a":{"dtype":"U8","shape":["x"],"data_offsets":[0,0]}})", "", "property 'shape'");
  ExpectDamaged(R"({"a":{"dtype":"U8","shape":[[0]],"data_offsets":[0,0]}})", "", "property 'shape'");
  ExpectDamaged(R"({"a":{"dtype":"U8","shape":[0.5],"data_offsets":[0,0]}})", "", "property 'shape'");
  ExpectDamaged(R"({"a":{"dtype":"U8","shape":[0],"data_offsets":{}}})", "", "property 'data_offsets'");
  ExpectDamaged(R"({"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0],"x":1}})", "", "unknown property 'x'");
  ExpectDamaged(R"({"__metadata__":{"a":{}}})", "", "where none belongs");
  ExpectDamaged(R"({"a":{"dtype":"U8","shape":[1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1],"data_offsets":[0,1]}})", "x",
                "more than 16");
  ExpectDamaged("{\"a\":" + std::string(1 << 20, '['), "", "where none belongs");
  const absl::Status unknown = OpenStatus(Bytes(R"({"a":{"dtype":"Q4","shape":[0],"data_offsets":[0,0]}})", ""));
  EXPECT_EQ(unknown.code(), absl::StatusCode::kUnimplemented);
  EXPECT_THAT(std::string(unknown.message()), HasSubstr("data type 'Q4'"));
}

TEST_F(SafetensorsTest, CutFilesAndForeignFilesAreRefused) {
  const std::string whole = Bytes(R"({"a":{"dtype":"U8","shape":[8],"data_offsets":[0,8]}})", "12345678");
  ASSERT_TRUE(OpenStatus(whole).ok());
  for (size_t size = 0; size < whole.size(); ++size) {
    const absl::Status status = OpenStatus(whole.substr(0, size));
    EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss) << size;
    EXPECT_THAT(std::string(status.message()), HasSubstr("copy or download the file again"));
  }
  EXPECT_EQ(OpenStatus(whole + "x").code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(OpenStatus("PK\x03\x04 a zip archive, as torch.save writes it").code(), absl::StatusCode::kDataLoss);
  std::string huge(8, '\xff');
  EXPECT_EQ(OpenStatus(huge + "{}").code(), absl::StatusCode::kDataLoss);
}

TEST_F(SafetensorsTest, AFileThatShrinksAfterOpeningIsDataLoss) {
  ASSERT_TRUE(OpenStatus(Bytes(R"({"a":{"dtype":"U8","shape":[8],"data_offsets":[0,8]}})", "12345678")).ok());
  const auto file = SafetensorsFile::Open(Path());
  ASSERT_EQ(truncate(Path().c_str(), 20), 0);
  EXPECT_EQ((*file)->Read("a").status().code(), absl::StatusCode::kDataLoss);
}

TEST_F(SafetensorsTest, MutatedFilesAreReadWholeOrRefused) {
  const std::string whole = Bytes(
      R"({"a":{"dtype":"F32","shape":[2,2],"data_offsets":[0,16]},"b":{"dtype":"I8","shape":[3],"data_offsets":[16,19]}})",
      std::string(19, 'x'));
  Random random(7);
  const std::string alphabet = "{}[]\",:0123456789abFIU\\ -.e\xff";
  int refused = 0;
  for (int round = 0; round < 3000; ++round) {
    std::string bytes = whole;
    for (uint64_t edits = 1 + random.Below(3); edits > 0; --edits) {
      const size_t at = random.Below(bytes.size());
      const char c = alphabet[random.Below(alphabet.size())];
      switch (random.Below(3)) {
        case 0:
          bytes[at] = c;
          break;
        case 1:
          bytes.insert(at, 1, c);
          break;
        default:
          bytes.erase(at, 1);
          break;
      }
    }
    ASSERT_TRUE(RemoveAll(Path()).ok());
    std::ofstream(Path(), std::ios::binary) << bytes;  // a new file and no fsync: 3,000 rounds
    const auto file = SafetensorsFile::Open(Path());
    if (!file.ok()) {
      ++refused;
      EXPECT_TRUE(absl::IsDataLoss(file.status()) || absl::IsUnimplemented(file.status())) << file.status();
      continue;
    }
    int64_t total = 0;
    for (const auto& [name, info] : (*file)->tensors()) {
      const auto read = (*file)->Read(name);
      ASSERT_TRUE(read.ok()) << read.status();
      EXPECT_EQ(static_cast<int64_t>(read->size()), info.bytes);
      total += info.bytes;
    }
    EXPECT_LE(total, static_cast<int64_t>(bytes.size()));
  }
  EXPECT_GT(refused, 2000);
}

TEST_F(SafetensorsTest, WhatIsWrittenIsReadBack) {
  const std::vector<float> floats = {1, 2, 3, 4, 5, 6};
  const std::vector<int64_t> ints = {-1, int64_t{1} << 40};
  const uint8_t byte = 9;
  const std::vector<TensorToWrite> tensors = {
      {"byte", TensorDtype::kU8, {}, &byte, 1},
      {"model.\"odd\" näme", TensorDtype::kF32, {2, 3}, floats.data(), 24},
      {"empty", TensorDtype::kBF16, {0, 4}, nullptr, 0},
      {"ints", TensorDtype::kI64, {2}, ints.data(), 16},
  };
  ASSERT_TRUE(WriteSafetensors(Path(), tensors, {{"format", "pt"}}).ok());
  const auto file = SafetensorsFile::Open(Path());
  ASSERT_TRUE(file.ok()) << file.status();
  ASSERT_EQ((*file)->tensors().size(), 4);
  EXPECT_EQ((*file)->metadata().at("format"), "pt");
  for (const TensorToWrite& tensor : tensors) {
    const auto info = (*file)->Info(tensor.name);
    ASSERT_TRUE(info.ok()) << info.status();
    EXPECT_EQ(info->dtype, tensor.dtype);
    EXPECT_EQ(info->shape, tensor.shape);
    EXPECT_EQ(info->offset % DtypeBytes(info->dtype), 0) << "aligned";
    EXPECT_EQ(*(*file)->Read(tensor.name),
              std::string(static_cast<const char*>(tensor.data ? tensor.data : ""), tensor.bytes));
  }
}

TEST_F(SafetensorsTest, WrongTensorsAreNotWritten) {
  const float value = 1;
  const TensorToWrite good = {"a", TensorDtype::kF32, {1}, &value, 4};
  EXPECT_EQ(WriteSafetensors(Path(), {good, good}).code(), absl::StatusCode::kInvalidArgument);
  TensorToWrite bad = good;
  bad.shape = {2};
  EXPECT_EQ(WriteSafetensors(Path(), {bad}).code(), absl::StatusCode::kInvalidArgument);
  bad = good;
  bad.name = "__metadata__";
  EXPECT_EQ(WriteSafetensors(Path(), {bad}).code(), absl::StatusCode::kInvalidArgument);
  bad.name = "\xff\xfe";
  EXPECT_EQ(WriteSafetensors(Path(), {bad}).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_FALSE(PathExists(Path()));
}

class SafetensorsFolderTest : public SafetensorsTest {
 protected:
  void WriteShard(const std::string& file, const std::string& tensor) {
    const float value = 3;
    ASSERT_TRUE(WriteSafetensors(Path(file), {{tensor, TensorDtype::kF32, {1}, &value, 4}}).ok());
  }
  absl::Status IndexStatus(const std::string& text) {
    EXPECT_TRUE(WriteFileAtomically(Path("model.safetensors.index.json"), text).ok());
    return SafetensorsFolder::Open(folder_).status();
  }
};

TEST_F(SafetensorsFolderTest, ShardsAreOneModel) {
  WriteShard("m-1.safetensors", "a");
  WriteShard("m-2.safetensors", "b");
  ASSERT_TRUE(IndexStatus(R"({"metadata":{"total_size":8,"x":[{"weight_map":{"q":1}}]},)"
                          R"("weight_map":{"b":"m-2.safetensors","a":"m-1.safetensors"}})")
                  .ok());
  const auto model = SafetensorsFolder::Open(folder_);
  EXPECT_THAT((*model)->names(), ElementsAre("a", "b"));
  EXPECT_EQ((*model)->paths().size(), 2);
  float value = 0;
  ASSERT_TRUE((*model)->ReadInto("b", &value, 4).ok());
  EXPECT_EQ(value, 3);
  EXPECT_EQ((*model)->Info("c").status().code(), absl::StatusCode::kNotFound);
}

TEST_F(SafetensorsFolderTest, OneFileIsAModelToo) {
  WriteShard("model.safetensors", "a");
  const auto model = SafetensorsFolder::Open(folder_);
  ASSERT_TRUE(model.ok()) << model.status();
  EXPECT_THAT((*model)->names(), ElementsAre("a"));
  EXPECT_EQ(SafetensorsFolder::Open(folder_, "other").status().code(), absl::StatusCode::kNotFound);
}

TEST_F(SafetensorsFolderTest, LyingIndicesAreRefused) {
  WriteShard("m-1.safetensors", "a");
  EXPECT_EQ(IndexStatus(R"({"weight_map":{"a":"../m-1.safetensors"}})").code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(IndexStatus(R"({"weight_map":{"a":"/etc/passwd"}})").code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(IndexStatus(R"({"weight_map":{"a":".."}})").code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(IndexStatus(R"({"weight_map":{"b":"m-1.safetensors"}})").code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(IndexStatus(R"({"weight_map":{"a":"m-3.safetensors"}})").code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(IndexStatus(R"({"weight_map":{"a":"m-1.safetensors","a":"m-1.safetensors"}})").code(),
            absl::StatusCode::kDataLoss);
  EXPECT_EQ(IndexStatus(R"({"weight_map":{"a":1}})").code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(IndexStatus(R"({"weight_map":{"a":{}}})").code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(IndexStatus(R"({"weight_map":[]})").code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(IndexStatus(R"({"weight_map":{}})").code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(IndexStatus(R"({})").code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(IndexStatus(R"([])").code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(IndexStatus("not json").code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(IndexStatus("{\"a\":" + std::string(100000, '[')).code(), absl::StatusCode::kDataLoss);
}

}  // namespace
}  // namespace sluice
