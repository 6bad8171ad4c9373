#include "common/catalog/npy.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/file/file.h"
#include "common/random/random.h"

namespace sluice {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

class NpyTest : public ::testing::Test {
 protected:
  NpyTest()
      : path_(absl::StrCat(::testing::TempDir(), "/npy_",
                           ::testing::UnitTest::GetInstance()->current_test_info()->name(), "_", getpid(), ".npy")) {}
  ~NpyTest() override { EXPECT_TRUE(RemoveAll(path_).ok()); }

  // As numpy.save writes it, by hand.
  static std::string File(const std::string& header, const std::string& data) {
    std::string bytes("\x93NUMPY\x01\x00", 8);
    bytes.push_back(static_cast<char>(header.size() & 0xff));
    bytes.push_back(static_cast<char>(header.size() >> 8));
    return bytes + header + data;
  }
  template <typename T>
  static std::string Data(const std::vector<T>& values) {
    return std::string(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T));
  }

  const std::string path_;
};

TEST_F(NpyTest, AHandMadeFileIsRead) {
  const auto array = ParseNpy(
      File("{'descr': '<i4', 'fortran_order': False, 'shape': (2, 3), }   \n", Data<int32_t>({1, 2, 3, 4, 5, -6})),
      "x");
  ASSERT_TRUE(array.ok()) << array.status();
  EXPECT_THAT(array->shape, ElementsAre(2, 3));
  EXPECT_THAT(*NpyValues<int32_t>(*array, 2, "x"), ElementsAre(1, 2, 3, 4, 5, -6));
  EXPECT_EQ(NpyValues<int64_t>(*array, 2, "x").status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(NpyValues<int32_t>(*array, 1, "x").status().code(), absl::StatusCode::kInvalidArgument);
}

TEST_F(NpyTest, WhatIsWrittenIsWhatNumpyWrites) {
  ASSERT_TRUE(WriteNpy(path_, {3}, std::vector<uint8_t>{7, 8, 9}).ok());
  std::string want = "{'descr': '|u1', 'fortran_order': False, 'shape': (3,), }";
  want.append(128 - 10 - 1 - want.size(), ' ');  // numpy.save pads to a multiple of 64
  EXPECT_EQ(*ReadFile(path_), File(want + "\n", "\x07\x08\x09"));
}

TEST_F(NpyTest, AllTypesSurviveTheWayThroughAFile) {
  ASSERT_TRUE(WriteNpy(path_, {2, 1}, std::vector<int64_t>{-1, int64_t{1} << 60}).ok());
  const auto array = ParseNpy(*ReadFile(path_), path_);
  ASSERT_TRUE(array.ok()) << array.status();
  EXPECT_EQ(array->data_offset % 64, 0);
  EXPECT_THAT(*NpyValues<int64_t>(*array, 2, path_), ElementsAre(-1, int64_t{1} << 60));
  ASSERT_TRUE(WriteNpy(path_, {0}, std::vector<int32_t>{}).ok());
  EXPECT_TRUE(NpyValues<int32_t>(*ParseNpy(*ReadFile(path_), path_), 1, path_)->empty());
}

TEST_F(NpyTest, MatricesOfBothPrecisionsAreRead) {
  ASSERT_TRUE(WriteNpy(path_, {1, 2}, std::vector<double>{0.5, -2}).ok());
  const auto wide = ReadNpyMatrix(path_);
  ASSERT_TRUE(wide.ok()) << wide.status();
  EXPECT_EQ(wide->rows, 1);
  EXPECT_EQ(wide->columns, 2);
  EXPECT_THAT(wide->values, ElementsAre(0.5f, -2.0f));
  ASSERT_TRUE(WriteNpy(path_, {1, 2}, std::vector<float>{0.5, -2}).ok());
  EXPECT_EQ(ReadNpyMatrix(path_)->values, wide->values);
}

TEST_F(NpyTest, MatricesThatCannotBeVectorsAreRefused) {
  ASSERT_TRUE(WriteNpy(path_, {1, 2}, std::vector<float>{0.5, NAN}).ok());
  EXPECT_THAT(std::string(ReadNpyMatrix(path_).status().message()), HasSubstr("row 0, column 1 is not a finite"));
  ASSERT_TRUE(WriteNpy(path_, {1, 1}, std::vector<double>{1e300}).ok());
  EXPECT_EQ(ReadNpyMatrix(path_).status().code(), absl::StatusCode::kInvalidArgument) << "beyond float32";
  ASSERT_TRUE(WriteNpy(path_, {2}, std::vector<float>{1, 2}).ok());
  EXPECT_EQ(ReadNpyMatrix(path_).status().code(), absl::StatusCode::kInvalidArgument);
  ASSERT_TRUE(WriteNpy(path_, {0, 4}, std::vector<float>{}).ok());
  EXPECT_EQ(ReadNpyMatrix(path_).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(ReadNpyMatrix(path_ + "x").status().code(), absl::StatusCode::kNotFound);
}

TEST_F(NpyTest, DamagedAndForeignFilesAreRefused) {
  const auto code = [](const std::string& bytes) { return ParseNpy(bytes, "x").status().code(); };
  const std::string good = "{'descr': '<i4', 'fortran_order': False, 'shape': (1,), }\n";
  const std::string whole = File(good, "1234");
  ASSERT_TRUE(ParseNpy(whole, "x").ok());
  for (size_t size = 0; size < whole.size(); ++size) {
    EXPECT_EQ(code(whole.substr(0, size)), absl::StatusCode::kDataLoss) << size;
  }
  EXPECT_EQ(code(whole + "5"), absl::StatusCode::kDataLoss);
  EXPECT_EQ(code(File("{'descr': '<i4', 'shape': (1,), }", "1234")), absl::StatusCode::kDataLoss);
  EXPECT_EQ(code(File("{'descr': '<i4', 'fortran_order': False, 'shape': (-1,), }", "1234")),
            absl::StatusCode::kDataLoss);
  EXPECT_EQ(code(File("{'descr': '<i4', 'fortran_order': False, 'shape': (4294967296, 4294967296), }", "")),
            absl::StatusCode::kDataLoss);
  EXPECT_EQ(code(File("{'descr': '>i4', 'fortran_order': False, 'shape': (1,), }", "1234")),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(code(File("{'descr': '|O', 'fortran_order': False, 'shape': (1,), }", "1234")),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(code(File("{'descr': [('a', '<i4')], 'fortran_order': False, 'shape': (1,), }", "1234")),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(code(File("{'descr': '<i4', 'fortran_order': True, 'shape': (1, 1), }", "1234")),
            absl::StatusCode::kInvalidArgument);
}

TEST_F(NpyTest, MutatedFilesAreReadWholeOrRefused) {
  const std::string whole = File("{'descr': '<i4', 'fortran_order': False, 'shape': (2, 3), }\n", std::string(24, 'x'));
  const std::string alphabet = "{}()[]',: 0123456789<>|iufTFe-\xff";
  Random random(5);
  for (int round = 0; round < 20000; ++round) {
    std::string bytes = whole;
    for (uint64_t edits = 1 + random.Below(3); edits > 0; --edits) {
      const size_t at = random.Below(bytes.size());
      const char c = alphabet[random.Below(alphabet.size())];
      if (random.Below(2) == 0) {
        bytes[at] = c;
      } else {
        bytes.insert(at, 1, c);
      }
    }
    const auto array = ParseNpy(bytes, "x");
    if (array.ok()) {
      EXPECT_LE(array->data().size(), bytes.size());
    }
  }
}

}  // namespace
}  // namespace sluice
